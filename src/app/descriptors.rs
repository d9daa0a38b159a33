//! How many connections the system's limit on open files leaves room for.

/// Descriptors that are not for clients: the admin address, adapters being read, logs, the model's files.
const RESERVE: u64 = 128;

/// As many of `wanted` connections to each of `doors` addresses as there is room for beside the reserve, so that health and metrics answer however
/// many clients there are. The soft limit is raised first, as far as the system lets a process.
pub(super) fn room_for(wanted: usize, doors: u64) -> usize {
    let needed = (wanted as u64).saturating_mul(doors).saturating_add(RESERVE);
    let Some(limit) = raised(needed) else { return wanted };
    let room = usize::try_from((limit.saturating_sub(RESERVE) / doors).max(1)).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            limit,
            "--max-connections is more than the limit on open files leaves room for: raise it (ulimit -n, LimitNOFILE)"
        );
    }
    wanted.min(room)
}

/// The limit on open files, raised to `needed` where that is allowed; `None` when there is none.
#[cfg(unix)]
fn raised(needed: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current?;
    if soft >= needed {
        return Some(soft);
    }
    let raised = maximum.map_or(needed, |hard| hard.min(needed));
    let set = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    Some(if set.is_ok() { raised } else { soft })
}

#[cfg(not(unix))]
fn raised(_: u64) -> Option<u64> {
    None
}
