mod answers;
mod ends;
mod failures;
mod grammars;
mod queue;
mod rig;
