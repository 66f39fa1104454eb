//! Where in an object something is: `spec.containers[0].name`.

use std::fmt;

/// A path into an object, built on the stack while walking and printed only when there is something to say.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A path written by somebody else, which everything below is appended to.
    At(&'a str),
    /// `parent.name`.
    Field(&'a Path<'a>, &'a str),
    /// `parent[index]`.
    Index(&'a Path<'a>, usize),
    /// `parent[key]`.
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    /// The field `name` below this path.
    pub fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    /// Item `index` of the list at this path.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    /// Entry `key` of the map at this path.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    /// The path as a field of an error: the object itself is `<nil>` there.
    pub fn to_field(&self) -> String {
        match self {
            Path::Root => "<nil>".to_owned(),
            path => path.to_string(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::At(text) => f.write_str(text),
            Path::Field(Path::Root | Path::At(""), name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_like_field_paths() {
        let spec = Path::Root.field("spec");
        let list = spec.field("containers");
        let first = list.index(0);
        assert_eq!(first.field("name").to_string(), "spec.containers[0].name");
        assert_eq!(first.key("a/b").to_string(), "spec.containers[0][a/b]");
        assert_eq!(Path::At("status").field("x").to_string(), "status.x");
        assert_eq!(Path::Root.to_field(), "<nil>");
    }
}
