/// Where an adapter is, the nearest place of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residence {
    /// In the memory of the model's GPU.
    Device,
    /// In the host's memory.
    Host,
    /// In the store; who asks for it waits for a load.
    Store,
}
