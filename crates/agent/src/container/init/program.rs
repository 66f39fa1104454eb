//! The program itself: where it is and what it is started with.

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};
use osc_agent_protocol::{Kind, oci};

use super::{
    Result, SetupError, during,
    rootfs::{Node, RootFs},
};
use crate::container::sys;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that was found, ready to be executed.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Makes the working directory where it is missing, as images expect.
pub fn make_cwd(root: &RootFs, cwd: &str) -> Result<()> {
    if cwd.is_empty() || cwd == "/" {
        return Ok(());
    }
    match root.ensure(Path::new(cwd), Node::Directory) {
        // What cannot be made on a read-only file system is reported when it is entered.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        Err(error) => Err(during("make working directory", cwd)(error)),
    }
}

impl Program {
    /// Finds the program of `process` in the container, as the current user.
    pub fn find(process: &oci::Process, uid: u32) -> Result<Self> {
        let Some(name) = process.Args.first() else {
            let reason = "at least the name of a program";
            return Err(SetupError::Invalid { field: "Process.Args", value: String::new(), reason });
        };
        let mut env = process.Env.clone();
        complete(&mut env, uid);
        let search = value(&env, "PATH").unwrap_or(DEFAULT_PATH).to_owned();
        let path = locate(name, &search)?;
        let text = |what: &[String]| what.iter().map(|text| c_string(text.as_bytes())).collect::<Result<Vec<_>>>();
        let file = c_string(path.as_os_str().as_bytes())?;
        Ok(Self { file, args: text(&process.Args)?, env: text(&env)?, path })
    }

    /// Becomes it; returns why not.
    pub fn execute(self) -> SetupError {
        let error = sys::execve(&self.file, &self.args, &self.env);
        during("exec", self.path.display())(error)
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| SetupError::Invalid {
        field: "Process",
        value: String::from_utf8_lossy(bytes).into_owned(),
        reason: "text without NUL bytes",
    })
}

fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// Adds what programs rely on and images may leave out.
fn complete(env: &mut Vec<String>, uid: u32) {
    if value(env, "PATH").is_none() {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if value(env, "HOME").is_none_or(str::is_empty) {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", home(&passwd, uid).unwrap_or("/")));
    }
}

/// The home directory of `uid` in a passwd file.
fn home(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse() == Ok(uid);
        found.then(|| fields.nth(2)).flatten().filter(|home| !home.is_empty())
    })
}

/// The file `name` stands for: itself when it has a slash, else the first hit on
/// the search path.
fn locate(name: &str, search: &str) -> Result<PathBuf> {
    let failed = |reason, kind| Err(SetupError::Program { name: name.into(), reason, kind });
    if name.contains('/') {
        return match runnable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Errno::EACCES | Errno::EISDIR) => failed("permission denied", Kind::Denied),
            Err(_) => failed("no such file or directory", Kind::NotFound),
        };
    }
    let mut denied = false;
    for dir in search.split(':') {
        let path = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match runnable(&path) {
            Ok(()) => return Ok(path),
            Err(errno) => denied |= errno == Errno::EACCES,
        }
    }
    if denied && !name.is_empty() {
        return failed("permission denied", Kind::Denied);
    }
    failed("executable file not found in $PATH", Kind::NotFound)
}

fn runnable(path: &Path) -> nix::Result<()> {
    access(path, AccessFlags::X_OK)?;
    if path.is_dir() { Err(Errno::EISDIR) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_the_passwd_file() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/false\nnone:x:7:7::\n";
        for (uid, want) in [(0, Some("/root")), (33, Some("/var/www")), (7, None), (99, None)] {
            assert_eq!(home(passwd, uid), want, "{uid}");
        }
    }

    #[test]
    fn path_and_home_are_filled_in_once() {
        let mut env = vec!["PATH=/x".to_owned(), "HOME=".to_owned()];
        complete(&mut env, 4_000_000);
        assert_eq!(env, ["PATH=/x", "HOME=/"]);
    }

    #[test]
    fn programs_are_found_as_a_shell_would() {
        for (name, search, want) in [
            ("sh", "/nowhere:/bin", Ok(PathBuf::from("/bin/sh"))),
            ("/bin/sh", "", Ok(PathBuf::from("/bin/sh"))),
            ("no-such-program", "/bin", Err(Kind::NotFound)),
            ("/no/such/program", "/bin", Err(Kind::NotFound)),
            ("/etc/passwd", "/bin", Err(Kind::Denied)),
            ("/etc", "/bin", Err(Kind::Denied)),
            ("passwd", "/etc", Err(Kind::Denied)),
            ("", "/bin", Err(Kind::NotFound)),
        ] {
            assert_eq!(locate(name, search).map_err(|error| error.kind()), want, "{name} in {search}");
        }
    }
}
