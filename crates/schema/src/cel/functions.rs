//! Which functions exist and what they take, for checking. One line is one overload: `receiver.name(arguments) result`;
//! names with a namespace (`math.abs`) have no receiver.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::types::Type;
use super::value::Value;

/// One way to call a function.
pub(crate) struct Overload {
    pub(crate) receiver: Option<Type<'static>>,
    pub(crate) arguments: Vec<Type<'static>>,
    pub(crate) result: Type<'static>,
}

/// Functions whose name has a namespace, which looks like a receiver.
const NAMESPACES: [&str; 9] = ["format", "math", "sets", "lists", "optional", "strings", "base64", "jsonpatch", "ip"];

const SIGNATURES: &str = "
size(string) int
size(bytes) int
size(list(dyn)) int
size(map) int
string.size() int
bytes.size() int
list(dyn).size() int
map.size() int

type(dyn) type
dyn(dyn) dyn
bool(bool) bool
bool(string) bool
int(any_number) int
int(string) int
int(timestamp) int
uint(any_number) uint
uint(string) uint
double(any_number) double
double(string) double
string(any_number) string
string(string) string
string(bool) string
string(bytes) string
string(timestamp) string
string(duration) string
string(ip) string
string(cidr) string
bytes(string) bytes
bytes(bytes) bytes
duration(string) duration
duration(duration) duration
timestamp(string) timestamp
timestamp(timestamp) timestamp

string.contains(string) bool
string.startsWith(string) bool
string.endsWith(string) bool
string.matches(string) bool
matches(string, string) bool
string.find(string) string
string.findAll(string) list(string)
string.findAll(string, int) list(string)
string.charAt(int) string
string.indexOf(string) int
string.indexOf(string, int) int
string.lastIndexOf(string) int
string.lastIndexOf(string, int) int
string.lowerAscii() string
string.upperAscii() string
string.replace(string, string) string
string.replace(string, string, int) string
string.split(string) list(string)
string.split(string, int) list(string)
string.substring(int) string
string.substring(int, int) string
string.trim() string
string.reverse() string
string.format(list(dyn)) string
list(string).join() string
list(string).join(string) string
strings.quote(string) string
base64.encode(bytes) string
base64.decode(string) bytes
jsonpatch.escapeKey(string) string

list(dyn).isSorted() bool
list(dyn).sum() dyn
list(dyn).min() dyn
list(dyn).max() dyn
list(dyn).indexOf(dyn) int
list(dyn).lastIndexOf(dyn) int
list(dyn).slice(int, int) list(dyn)
list(dyn).sort() list(dyn)
list(dyn).flatten() list(dyn)
list(dyn).flatten(int) list(dyn)
list(dyn).distinct() list(dyn)
list(dyn).reverse() list(dyn)
list(dyn).first() optional(dyn)
list(dyn).last() optional(dyn)
lists.range(int) list(int)
sets.contains(list(dyn), list(dyn)) bool
sets.equivalent(list(dyn), list(dyn)) bool
sets.intersects(list(dyn), list(dyn)) bool

math.ceil(double) double
math.floor(double) double
math.round(double) double
math.trunc(double) double
math.sqrt(any_number) double
math.abs(any_number) dyn
math.sign(any_number) dyn
math.isInf(double) bool
math.isNaN(double) bool
math.isFinite(double) bool
math.bitAnd(any_number, any_number) dyn
math.bitOr(any_number, any_number) dyn
math.bitXor(any_number, any_number) dyn
math.bitNot(any_number) dyn
math.bitShiftLeft(any_number, int) dyn
math.bitShiftRight(any_number, int) dyn
math.greatest(dyn) dyn
math.greatest(any_number, any_number) dyn
math.greatest(any_number, any_number, any_number) dyn
math.least(dyn) dyn
math.least(any_number, any_number) dyn
math.least(any_number, any_number, any_number) dyn

timestamp.getFullYear() int
timestamp.getMonth() int
timestamp.getDayOfYear() int
timestamp.getDayOfMonth() int
timestamp.getDate() int
timestamp.getDayOfWeek() int
timestamp.getHours() int
timestamp.getMinutes() int
timestamp.getSeconds() int
timestamp.getMilliseconds() int
duration.getHours() int
duration.getMinutes() int
duration.getSeconds() int
duration.getMilliseconds() int

optional.none() optional(dyn)
optional.of(dyn) optional(dyn)
optional.ofNonZeroValue(dyn) optional(dyn)
optional(dyn).hasValue() bool
optional(dyn).value() dyn
optional(dyn).or(optional(dyn)) optional(dyn)
optional(dyn).orValue(dyn) dyn

quantity(string) quantity
isQuantity(string) bool
quantity.isInteger() bool
quantity.asInteger() int
quantity.asApproximateFloat() double
quantity.sign() int
quantity.add(quantity) quantity
quantity.add(int) quantity
quantity.sub(quantity) quantity
quantity.sub(int) quantity
quantity.isGreaterThan(quantity) bool
quantity.isLessThan(quantity) bool
quantity.compareTo(quantity) int

semver(string) semver
semver(string, bool) semver
isSemver(string) bool
isSemver(string, bool) bool
semver.major() int
semver.minor() int
semver.patch() int
semver.isGreaterThan(semver) bool
semver.isLessThan(semver) bool
semver.compareTo(semver) int

url(string) url
isURL(string) bool
url.getScheme() string
url.getHost() string
url.getHostname() string
url.getPort() string
url.getEscapedPath() string
url.getQuery() map

ip(string) ip
isIP(string) bool
ip.isCanonical(string) bool
ip.family() int
ip.isLoopback() bool
ip.isUnspecified() bool
ip.isLinkLocalMulticast() bool
ip.isLinkLocalUnicast() bool
ip.isGlobalUnicast() bool
cidr(string) cidr
isCIDR(string) bool
cidr.containsIP(ip) bool
cidr.containsIP(string) bool
cidr.containsCIDR(cidr) bool
cidr.containsCIDR(string) bool
cidr.ip() ip
cidr.prefixLength() int
cidr.masked() cidr

format.dns1123Label() format
format.dns1123Subdomain() format
format.dns1035Label() format
format.dns1035LabelPrefix() format
format.dns1123LabelPrefix() format
format.dns1123SubdomainPrefix() format
format.qualifiedName() format
format.labelValue() format
format.uri() format
format.uuid() format
format.byte() format
format.date() format
format.datetime() format
format.named(string) optional(format)
format.validate(string) optional(list(string))
";

static OVERLOADS: LazyLock<HashMap<String, Vec<Overload>>> = LazyLock::new(|| {
    let mut by_name: HashMap<String, Vec<Overload>> = HashMap::new();
    for (name, overload) in SIGNATURES.lines().filter_map(read) {
        by_name.entry(name).or_default().push(overload);
    }
    by_name
});

impl Overload {
    /// Whether it can be called with these values. The types of some are known only now.
    pub(crate) fn accepts(&self, receiver: Option<&Value>, arguments: &[Value]) -> bool {
        let receives = match (&self.receiver, receiver) {
            (Some(kind), Some(value)) => kind.accepts(value),
            (None, None) => true,
            _ => false,
        };
        receives
            && self.arguments.len() == arguments.len()
            && self.arguments.iter().zip(arguments).all(|(kind, value)| kind.accepts(value))
    }
}

/// All ways to call `name`, with a receiver or without.
pub(crate) fn overloads(name: &str) -> &'static [Overload] {
    OVERLOADS.get(name).map_or(&[], Vec::as_slice)
}

/// Every overload with its name.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static Overload)> {
    OVERLOADS.iter().flat_map(|(name, overloads)| overloads.iter().map(move |overload| (name.as_str(), overload)))
}

/// The full name of a function in a namespace, if there is one.
pub(crate) fn in_namespace(namespace: &str, name: &str) -> Option<String> {
    let full = format!("{namespace}.{name}");
    (NAMESPACES.contains(&namespace) && OVERLOADS.contains_key(&full)).then_some(full)
}

fn read(line: &str) -> Option<(String, Overload)> {
    let (call, result) = line.rsplit_once(") ")?;
    // The receiver may have parentheses of its own: the arguments are in the last pair.
    let mut depth = 1;
    let open = call.char_indices().rev().find(|(_, c)| {
        depth += match c {
            ')' => 1,
            '(' => -1,
            _ => 0,
        };
        depth == 0
    })?;
    let (head, arguments) = (&call[..open.0], &call[open.0 + 1..]);
    let arguments = arguments.split(", ").filter(|name| !name.is_empty()).map(Type::named).collect::<Option<_>>()?;
    let result = Type::named(result)?;
    let (receiver, name) = match head.rsplit_once('.') {
        Some((receiver, name)) if !is_namespaced(receiver, name) => (Some(Type::named(receiver)?), name),
        _ => (None, head),
    };
    Some((name.to_owned(), Overload { receiver, arguments, result }))
}

/// `ip` and `format` are types as well as namespaces.
fn is_namespaced(receiver: &str, name: &str) -> bool {
    match receiver {
        "ip" => name == "isCanonical",
        "format" => name != "validate",
        other => NAMESPACES.contains(&other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_signature() {
        for line in SIGNATURES.lines().filter(|line| !line.is_empty()) {
            assert!(read(line).is_some(), "{line}");
        }
        assert!(in_namespace("math", "abs").is_some() && in_namespace("math", "none").is_none());
        assert!(overloads("validate")[0].receiver.is_some() && overloads("ip.isCanonical")[0].receiver.is_none());
    }
}
