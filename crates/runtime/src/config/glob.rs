//! glob(3) patterns, for the lists of values an annotation may take.

/// Whether `text` matches `pattern` as a path: `*`, `?` and `[a-z]`/`[!a-z]` never
/// match a `/`, `\` takes the next character literally.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Where to resume when the latest `*` has to take one character more.
    let mut resume: Option<(usize, usize)> = None;
    let (mut p, mut t) = (0, 0);
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            resume = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(&pattern[p..], text[t]) {
            p += next;
            t += 1;
            continue;
        }
        match resume {
            Some((star, from)) if text[from] != '/' => {
                resume = Some((star, from + 1));
                (p, t) = (star, from + 1);
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Length of the pattern element that matches `c`, if the first one does.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (c != '/').then_some(1),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        ['[', rest @ ..] => match class(rest, c) {
            Some((len, hit)) => (hit && c != '/').then_some(len + 1),
            None => (c == '[').then_some(1),
        },
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

/// Length of the class after its `[` and whether `c` is in it; `None` when it never
/// ends and the `[` stands for itself.
fn class(pattern: &[char], c: char) -> Option<(usize, bool)> {
    let negated = matches!(pattern.first(), Some('!' | '^'));
    let start = usize::from(negated);
    // A `]` in first place is a member.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|c| *c == ']')?;
    let members = &pattern[start..end];
    let mut hit = false;
    let mut n = 0;
    while n < members.len() {
        if n + 2 < members.len() && members[n + 1] == '-' {
            hit |= (members[n]..=members[n + 2]).contains(&c);
            n += 3;
        } else {
            hit |= members[n] == c;
            n += 1;
        }
    }
    Some((end + 1, hit != negated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("/usr/bin/qemu", "/usr/bin/qemu", true),
            ("/usr/bin/qemu", "/usr/bin/qemu2", false),
            ("/usr/bin/qemu*", "/usr/bin/qemu-system-x86_64", true),
            ("/usr/*/qemu", "/usr/a/b/qemu", false),
            ("/usr/*/qemu", "/usr/a/qemu", true),
            ("/opt/*", "/opt/../etc/x", false),
            ("*", "", true),
            ("*a*b", "xaayb", true),
            ("*a*b", "xaay", false),
            ("/q?mu", "/qemu", true),
            ("/q?mu", "/q/mu", false),
            ("/v[1-3]", "/v2", true),
            ("/v[!1-3]", "/v2", false),
            ("/v[]x]", "/v]", true),
            ("/v[1", "/v[1", true),
            ("/\\*", "/*", true),
            ("/\\*", "/a", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
    }
}
