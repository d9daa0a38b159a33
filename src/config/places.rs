use std::{
    env,
    path::{Path, PathBuf},
};

/// The folders in which what ships with the server is looked for, best first.
#[derive(Debug, Clone)]
pub struct Places(Vec<PathBuf>);

impl Places {
    /// `$DEPT_HOME`, the working directory, `<executable>/../share/dept`.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub fn from_environment() -> Self {
        let home = env::var_os("DEPT_HOME").map(PathBuf::from);
        let share = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("share/dept")));
        Self([home, Some(PathBuf::from(".")), share].into_iter().flatten().collect())
    }

    /// These folders.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(roots.into_iter().collect())
    }

    /// The first folder `relative` that exists.
    pub fn folder(&self, relative: impl AsRef<Path>) -> Option<PathBuf> {
        self.0.iter().map(|root| root.join(relative.as_ref())).find(|path| path.is_dir())
    }

    /// The places in words, for a message.
    pub fn describe(&self) -> String {
        self.0.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}
