use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgMatches, Command, CommandFactory, FromArgMatches,
    builder::{OsStr, Resettable},
};

use super::{ConfigError, ServeArgs};

/// The sub-command that `dept.toml` configures.
const CONFIGURED: &str = "serve";

/// Its flag that names the file, which the file itself cannot set.
const NAMES_THE_FILE: &str = "config";

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "dept.toml";

/// Reads a command line as `C`, with `dept.toml` in place of the defaults of its `serve` sub-command.
///
/// # Errors
/// [`ConfigError::Usage`] for the command line (and for `--help`), the others for the file.
pub fn parse<C: CommandFactory + FromArgMatches>(
    argv: impl IntoIterator<Item = OsString>,
) -> Result<C, ConfigError> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    let command = C::command();
    let mut matches = command.clone().try_get_matches_from(&argv)?;
    if let Some((path, text)) = matches.subcommand_matches(CONFIGURED).map(read).transpose()?.flatten() {
        let mut failure = Ok(());
        let command = command.mut_subcommand(CONFIGURED, |serve| {
            with_defaults(serve.clone(), &path, &text).unwrap_or_else(|error| {
                failure = Err(error);
                serve
            })
        });
        failure?;
        matches = command.try_get_matches_from(&argv)?;
    }
    Ok(C::from_arg_matches_mut(&mut matches)?)
}

/// The file that `args` were read from; `None` when none is named and the default one is not there.
pub fn file_of(args: &ServeArgs) -> Option<PathBuf> {
    args.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.is_file()))
}

/// The file's path and text; `None` when no file is named and the default one is not there.
fn read(matches: &ArgMatches) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let named: Option<&PathBuf> = matches.get_one(NAMES_THE_FILE);
    let path = named.cloned().unwrap_or_else(|| DEFAULT_FILE.into());
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if named.is_none() && e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(ConfigError::Unreadable { path, cause }),
    }
}

/// `command` with the file's values as its defaults.
pub(super) fn with_defaults(mut command: Command, path: &Path, text: &str) -> Result<Command, ConfigError> {
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError::Syntax { path: path.into(), cause: e.to_string() })?;
    for (key, value) in &table {
        let known = |arg: &&Arg| arg.get_id() != NAMES_THE_FILE && arg.get_long().is_some();
        let Some(arg) = command.get_arguments().filter(known).find(|arg| arg.get_id() == key.as_str()) else {
            let known = command.get_arguments().filter(known).map(|arg| arg.get_id().as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(ConfigError::UnknownKey { path: path.into(), key: key.clone(), known });
        };
        let value = scalar(value).ok_or("write one string, number or boolean".into());
        let value = value
            .and_then(|value| check(arg, &value).map(|()| value))
            .map_err(|cause| ConfigError::BadValue { path: path.into(), key: key.clone(), cause })?;
        command = command.mut_arg(key, |arg| arg.default_value(OsStr::from(value)));
    }
    Ok(command)
}

/// A value as it would stand on a command line.
fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Whether `arg` takes `value`, by clap's own judgement, so that a complaint names the file and not the command line.
fn check(arg: &Arg, value: &str) -> Result<(), String> {
    let flag = format!("--{}={value}", arg.get_long().unwrap_or_default());
    let alone = arg.clone().env(Resettable::<OsStr>::Reset);
    let complaint = |error: clap::Error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    Command::new(DEFAULT_FILE)
        .no_binary_name(true)
        .arg(alone)
        .try_get_matches_from([flag])
        .map(drop)
        .map_err(complaint)
}
