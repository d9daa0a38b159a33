use std::{
    env,
    path::{Path, PathBuf},
};

/// The folders in which what ships with the server is looked for, best first.
#[derive(Debug, Clone)]
pub struct Places {
    roots: Vec<PathBuf>,
    cache: Option<PathBuf>,
}

impl Places {
    /// `$DEPT_HOME`, the working directory, `<executable>/../share/dept`; for what can be made again `$XDG_CACHE_HOME/dept`, or
    /// `$HOME/.cache/dept`.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub fn from_environment() -> Self {
        let home = env::var_os("DEPT_HOME").map(PathBuf::from);
        let share = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("share/dept")));
        let folder = |name| env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
        let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Self {
            roots: [home, Some(PathBuf::from(".")), share].into_iter().flatten().collect(),
            cache: cache.map(|cache| cache.join("dept")),
        }
    }

    /// These folders, and none for what can be made again.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { roots: roots.into_iter().collect(), cache: None }
    }

    /// The first folder `relative` that exists.
    pub fn folder(&self, relative: impl AsRef<Path>) -> Option<PathBuf> {
        self.roots.iter().map(|root| root.join(relative.as_ref())).find(|path| path.is_dir())
    }

    /// The folder of the user's for what can be made again, which need not be there yet.
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// The places in words, for a message.
    pub fn describe(&self) -> String {
        self.roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}
