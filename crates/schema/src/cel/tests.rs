//! The language and its functions, as expressions that must be true, fail, or not compile.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn object() -> Json {
    json!({
        "name": "web", "n": 3, "f": 1.5, "yes": true, "none": null,
        "list": [1, 2, 3], "words": ["b", "a"], "empty": [],
        "labels": {"app": "x", "a.b/c": "y"}, "a-b": 1, "in": 2,
        "items": [{"k": "a", "v": 1}, {"k": "b"}],
        "size": "1500m",
    })
}

fn evaluate(text: &str) -> Result<Json, String> {
    let expression = Expression::compile(text, &["self"]).map_err(|error| format!("compile: {error}"))?;
    expression.evaluate(&[("self", &object())]).map_err(|error| error.to_string())
}

#[test]
fn expressions_are_true() {
    for text in [
        "self.n == 3 && self.f == 1.5 && self.yes && self.none == null",
        "self.n + 1 == 4 && self.n - 5 == -2 && self.n * 2 == 6 && self.n / 2 == 1 && self.n % 2 == 1",
        "1 == 1.0 && 1u == 1 && 2 > 1.5 && 1u < 2",
        "-(-3) == 3 && --3 == 3 && !!true && -9223372036854775808 < 0",
        "'a' + 'b' == 'ab' && [1] + [2] == [1, 2] && b'a' + b'b' == b'ab'",
        "'a' < 'b' && true > false",
        "self.name == \"web\" ? true : self.missing",
        "true || self.missing",
        "self.missing || true",
        "!(self.missing && false)",
        "has(self.name) && !has(self.missing)",
        "2 in self.list && !(9 in self.list) && 'app' in self.labels && 1.0 in self.list",
        "self['a-b'] == 1 && self.a__dash__b == 1 && self.`a-b` == 1 && self.__in__ == 2 && self.labels['a.b/c'] == 'y'",
        "self.list[0] == 1 && self.list[2u] == 3",
        "self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x > 2)",
        "self.empty.all(x, false) && !self.empty.exists(x, true)",
        "self.list.map(x, x * 2) == [2, 4, 6] && self.list.map(x, x > 1, x) == [2, 3]",
        "self.list.filter(x, x > 1) == [2, 3]",
        "self.labels.all(k, k.size() > 2) && self.labels.exists(k, v, v == 'y')",
        "self.list.all(i, x, x == i + 1)",
        "self.list.exists(x, self.missing || x == 2)",
        "self.items.all(i, has(i.v) ? i.v > 0 : true)",
        "size(self.list) == 3 && self.name.size() == 3 && size('é') == 1 && size(b'é') == 2",
        "{'a': 1, 'b': [1]} == {'b': [1], 'a': 1} && {1: 2}[1] == 2",
        "type(self.n) == int && type('') == string && type([]) == list && type(null) == null_type && type(1u) != int",
        "int('3') == 3 && int(2.9) == 2 && double('1.5') == 1.5 && string(3) == '3' && uint(3) == 3u && bool('true')",
        "string(1.5) == '1.5' && string(true) == 'true' && bytes('a') == b'a'",
        "self.name.startsWith('w') && self.name.endsWith('b') && self.name.contains('e') && self.name.matches('^w.b$')",
        "'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && ['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'",
        "'hello'.replace('l', 'L') == 'heLLo' && 'hello'.replace('l', 'L', 1) == 'heLlo'",
        "'Ab'.lowerAscii() == 'ab' && 'Ab'.upperAscii() == 'AB' && ' a '.trim() == 'a'",
        "'tacocat'.charAt(3) == 'o' && 'tacocat'.substring(4) == 'cat' && 'abcabc'.indexOf('c') == 2",
        "'abcabc'.lastIndexOf('c') == 5 && 'abc'.reverse() == 'cba' && '%s=%d'.format(['a', 1]) == 'a=1'",
        "[1, 2, 2].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2].indexOf(2) == 1",
        "self.?name.orValue('x') == 'web' && self.?missing.orValue('x') == 'x' && !self.?missing.hasValue()",
        "self.?labels.?app == optional.of('x') && self.?missing.?deeper == optional.none()",
        "self[?'n'].value() == 3 && self.list[?9].orValue(0) == 0 && optional.none().or(optional.of(1)).value() == 1",
        "[1, ?self.?missing, ?optional.of(2)] == [1, 2] && {?'a': self.?missing, 'b': 1} == {'b': 1}",
        "self.?n.optMap(x, x + 1).orValue(0) == 4 && !optional.none().optMap(x, x).hasValue()",
        "cel.bind(x, self.n * 2, x + x) == 12",
        "quantity('1500m').isGreaterThan(quantity('1')) && quantity('1Gi').compareTo(quantity('1024Mi')) == 0",
        "isQuantity(self.size) && !isQuantity('x') && quantity('5').asInteger() == 5",
        "quantity('1').add(quantity('500m')).sub(quantity('1')).isLessThan(quantity('1'))",
        "!format.dns1123Subdomain().validate('a.b').hasValue() && format.dns1123Label().validate('A_').hasValue()",
        "format.named('dns1123Label').hasValue() && !format.qualifiedName().validate('a.b/c').hasValue()",
        "isURL('https://a.b:80/c') && url('https://a.b:80/c').getPort() == '80' && url('https://a.b/c').getHost() == 'a.b'",
        "isIP('10.0.0.1') && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "isSemver('1.2.3') && semver('1.2.3').minor() == 2 && semver('2.0.0').isGreaterThan(semver('1.9.9'))",
        "duration('1h') > duration('59m') && timestamp('2024-01-02T00:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('24h')",
        "timestamp('2024-01-02T03:04:05Z').getFullYear() == 2024 && duration('90m').getHours() == 1",
        "sets.contains([1, 2], [1]) && sets.intersects([1], [1, 2]) && !sets.equivalent([1], [2])",
        "math.abs(-1) == 1 && math.greatest(1, 2) == 2 && math.ceil(1.2) == 2.0",
        "base64.decode('YQ==') == b'a'",
        "[1, 2].first().value() == 1 && lists.range(3) == [0, 1, 2]",
    ] {
        assert_eq!(evaluate(text), Ok(json!(true)), "{text}");
    }
}

#[test]
fn expressions_fail() {
    for (text, want) in [
        ("self.missing", "no such key: missing"),
        ("self.list[9]", "index out of bounds: 9"),
        ("self.labels['x']", "no such key: \"x\""),
        ("self.n / 0", "ero"),
        ("self.n % 0", "ero"),
        ("9223372036854775807 + self.n", "verflow"),
        ("self.name.size", "field 'size' of 'string'"),
        ("self.n && true", "not a bool"),
        ("self.n < self.name", "no such overload: _<_(int, string)"),
        ("self.name.matches('[' + self.name)", "invalid regular expression"),
        ("self.list.all(x, x > self.name)", "no such overload"),
        ("self.?missing.value()", "optional.none() dereference"),
        ("{'a': 1, 'a': 2}", "repeated key"),
        ("self.n.all(x, true)", "cannot iterate"),
        ("bool('x')", "conversion"),
        ("int('x')", ""),
        ("quantity('x')", ""),
    ] {
        match evaluate(text) {
            Err(error) if !error.starts_with("compile") => assert!(error.contains(want), "{text}: {error}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn expressions_that_cannot_work_do_not_compile() {
    for (text, want) in [
        ("other", "<input>:1:1: undeclared reference to 'other'"),
        ("authorizer.group('')", "undeclared reference to 'authorizer'"),
        ("self.x.nope()", "<input>:1:7: undeclared reference to 'nope'"),
        ("nope(self)", "undeclared reference to 'nope'"),
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("'a'.size(1)", "found no matching overload for 'size'"),
        ("!1", "found no matching overload for '!_'"),
        ("1 && true", "found no matching overload for '_&&_'"),
        ("'a'.all(x, true)", "cannot be range of a comprehension"),
        ("[1].all(x, x)", "found no matching overload"),
        ("'a'.b", "does not support field selection"),
        ("1 in 2", "found no matching overload for '@in'"),
        ("[1].map(x, y)", "undeclared reference to 'y'"),
        ("self.x >=\n  ", "<input>:2:3: Syntax error"),
        ("1 ? 2 : 3", "'_?_:_'"),
    ] {
        let error = Expression::compile(text, &["self"]).map(|_| text).unwrap_err();
        assert!(error.to_string().contains(want), "{text}: {error}");
    }
}

#[test]
fn hostile_expressions_end() {
    let long = json!({"s": "a".repeat(100_000), "l": vec![1; 2000]});
    let started = Instant::now();
    for text in [
        "self.l.all(a, self.l.all(b, self.l.all(c, true)))",
        "self.s.replace('', self.s).size() > 0",
        "self.l.map(x, self.s).join(self.s) == ''",
        "[self.s].map(a, a + a).map(a, a[0] + a[0])[0].size() > 0 && self.l.all(x, self.s + self.s != '')",
        "self.l.all(x, self == self)",
        "self.l.all(x, self.s.matches('(a|b|c)*x?'))",
        "lists.range(9000000000000000000).size() > 0",
        "sets.equivalent(self.l, self.l) && self.l.distinct().size() > 0",
        "self.l.exists(x, self.l.map(y, self.l).size() < 0 || self.l.flatten().size() < 0)",
    ] {
        let expression = Expression::compile(text, &["self"]).unwrap();
        match expression.evaluate(&[("self", &long)]) {
            Err(EvaluateError::Budget) => {}
            // The check of types of arguments may come first.
            Err(EvaluateError::Failed(_)) => {}
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn the_deepest_expression_fits_a_small_stack() {
    let worker = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        for (open, middle, close) in
            [("(1+", "1", ")"), ("[", "1", "]"), ("dyn(", "1", ")"), ("[1].map(x,", "1", ")"), ("{1:", "1", "}")]
        {
            let deepest = (1..200)
                .map(|n| format!("{}{middle}{}", open.repeat(n), close.repeat(n)))
                .take_while(|text| Expression::compile(text, &[]).is_ok())
                .last()
                .unwrap();
            let _ = Expression::compile(&deepest, &[]).unwrap().evaluate(&[]);
            assert!(deepest.len() > 40 * open.len(), "{open}");
        }
    });
    worker.unwrap().join().unwrap();
}

/// Snippets expressions are put together from, right and wrong ones.
const SNIPPETS: [&str; 44] = [
    "self",
    ".n",
    ".name",
    ".list",
    ".labels",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "?",
    ":",
    ",",
    "1",
    "0x",
    "1u",
    "1.5",
    "'a'",
    "'",
    "\"",
    "'''",
    "r'",
    "b'",
    "\\",
    "has(",
    ".all(x,",
    ".map(x,",
    "x",
    "!",
    "-",
    "&&",
    "||",
    "==",
    "in",
    ".?n",
    "[?",
    "true",
    "null",
    ".size()",
    ".orValue(",
    "`",
    "é",
    "+",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_panics(parts in proptest::collection::vec(proptest::sample::select(SNIPPETS.to_vec()), 0..14)) {
        let _ = evaluate(&parts.concat());
    }

    #[test]
    fn arithmetic_does_not_panic(a in any::<i64>(), b in any::<i64>(), c in any::<f64>()) {
        for operator in ["+", "-", "*", "/", "%", "<", "=="] {
            let _ = evaluate(&format!("dyn({a}) {operator} dyn({b})"));
            let _ = evaluate(&format!("uint('{}') {operator} {}u", a as u64, b as u64));
            let _ = evaluate(&format!("double('{c}') {operator} {b}.0"));
            let _ = evaluate(&format!("duration('{a}ns') {operator} duration('{b}h')"));
            let _ = evaluate(&format!("timestamp('9999-12-31T23:59:59Z') {operator} duration('{b}s')"));
        }
        let _ = evaluate(&format!("int({c:?}) + uint({c:?})"));
    }
}

/// Values handed to every function in every position.
const VALUES: [&str; 22] = [
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615u",
    "1.5",
    "1e308",
    "''",
    "'a'",
    "'é€'",
    "'99999999999999999999'",
    "'1.2.3'",
    "'10.0.0.0/8'",
    "b''",
    "[]",
    "['a', 'é']",
    "[3, 1]",
    "[[1], 2]",
    "{}",
    "null",
    "quantity('9223372036854775807')",
    "timestamp('0001-01-01T00:00:00Z')",
];

#[test]
fn no_function_panics_on_odd_values() {
    for (name, overload) in functions::all() {
        for (i, first) in VALUES.iter().enumerate() {
            for step in [0, 1, 3, 7, 11] {
                let other = |n: usize| format!("dyn({})", VALUES[(i + step * n) % VALUES.len()]);
                let arguments: Vec<String> = (1..=overload.arguments.len()).map(other).collect();
                let receiver = overload.receiver.as_ref().map_or(String::new(), |_| format!("dyn({first})."));
                let _ = evaluate(&format!("{receiver}{name}({})", arguments.join(", ")));
            }
        }
    }
}
