mod answers;
mod ends;
mod failures;
mod queue;
mod rig;
