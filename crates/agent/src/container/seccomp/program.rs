//! The instructions of a filter.

use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386` of `linux/audit.h`.
pub const ARCH_X86: u32 = 0x4000_0003;
/// Bit that marks x32 calls, which hardly any kernel offers and no profile needs.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// How an argument is compared, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `==` of the bits in `mask`.
    MaskedEqual {
        /// Bits looked at.
        mask: u64,
    },
}

/// One comparison of an argument with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Argument, 0 to 5.
    pub arg: u32,
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u64,
}

/// What is done when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// None of them: always.
    pub conditions: Vec<Condition>,
    /// A `SECCOMP_RET_` value with its data.
    pub action: u32,
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn and(mask: u32) -> sock_filter {
    statement(BPF_ALU | BPF_AND | BPF_K, mask)
}

fn ret(action: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

fn skip(instructions: usize) -> sock_filter {
    statement(BPF_JMP | BPF_JA, instructions as u32)
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}

/// The part for one architecture; it always ends in a return.
pub fn calls(rules: &BTreeMap<u32, Vec<&Rule>>, default: u32) -> Vec<sock_filter> {
    let mut program = vec![load(NUMBER)];
    for (number, rules) in rules {
        let body = call_body(rules, default);
        match u8::try_from(body.len()) {
            Ok(len) => program.push(jump(BPF_JEQ, *number, 0, len)),
            Err(_) => program.extend([jump(BPF_JEQ, *number, 1, 0), skip(body.len())]),
        }
        program.extend(body);
    }
    program.push(ret(default));
    program
}

fn call_body(rules: &[&Rule], default: u32) -> Vec<sock_filter> {
    let mut body = Vec::new();
    for rule in rules {
        let conditions = rule.conditions.iter().map(check).collect::<Vec<_>>();
        let mut left: usize = conditions.iter().map(Vec::len).sum();
        for check in conditions {
            left -= check.len();
            let at_end = check.len();
            // A failed condition goes on behind the return of this rule.
            body.extend(check.into_iter().enumerate().map(|(i, step)| step.placed(at_end - 1 - i, left + 1)));
        }
        body.push(ret(rule.action));
        if rule.conditions.is_empty() {
            return body;
        }
    }
    body.push(ret(default));
    body
}

/// Where a jump inside a condition goes.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// The condition holds.
    Holds,
    /// It does not.
    Fails,
}

enum Step {
    Plain(sock_filter),
    Jump(u32, u32, To, To),
}

impl Step {
    /// The instruction, `rest` before the end of its condition and `fail` further
    /// to where a failed rule goes on.
    fn placed(self, rest: usize, fail: usize) -> sock_filter {
        // Six arguments of at most seven steps each: all distances are small.
        let distance = |to| match to {
            To::Next => 0,
            To::Holds => rest as u8,
            To::Fails => (rest + fail) as u8,
        };
        match self {
            Self::Plain(instruction) => instruction,
            Self::Jump(test, k, yes, no) => jump(test, k, distance(yes), distance(no)),
        }
    }
}

/// Arguments are 64 bits wide, registers 32: the high half decides unless equal.
fn check(condition: &Condition) -> Vec<Step> {
    use Step::{Jump, Plain};
    use To::{Fails, Holds, Next};
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let load_low = || Plain(load(ARGS + 8 * condition.arg));
    let load_high = || Plain(load(ARGS + 8 * condition.arg + 4));
    let ordered = |above, below, test, yes, no| {
        let by_high = [load_high(), Jump(BPF_JGT, high, above, Next), Jump(BPF_JEQ, high, Next, below)];
        by_high.into_iter().chain([load_low(), Jump(test, low, yes, no)]).collect()
    };
    match condition.compare {
        Compare::Equal => {
            vec![load_high(), Jump(BPF_JEQ, high, Next, Fails), load_low(), Jump(BPF_JEQ, low, Holds, Fails)]
        }
        Compare::NotEqual => {
            vec![load_high(), Jump(BPF_JEQ, high, Next, Holds), load_low(), Jump(BPF_JEQ, low, Fails, Holds)]
        }
        Compare::Greater => ordered(Holds, Fails, BPF_JGT, Holds, Fails),
        Compare::GreaterOrEqual => ordered(Holds, Fails, BPF_JGE, Holds, Fails),
        Compare::Less => ordered(Fails, Holds, BPF_JGE, Fails, Holds),
        Compare::LessOrEqual => ordered(Fails, Holds, BPF_JGT, Fails, Holds),
        Compare::MaskedEqual { mask } => vec![
            load_high(),
            Plain(and((mask >> 32) as u32)),
            Jump(BPF_JEQ, high & (mask >> 32) as u32, Next, Fails),
            load_low(),
            Plain(and(mask as u32)),
            Jump(BPF_JEQ, low & mask as u32, Holds, Fails),
        ],
    }
}

/// The whole program: the architecture decides which part is entered.
pub fn assemble(native: &[sock_filter], compat: Option<&[sock_filter]>) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH), jump(BPF_JEQ, ARCH_X86_64, 1, 0), skip(native.len() + 3)];
    program.extend([load(NUMBER), jump(BPF_JGE, X32_BIT, 0, 1), ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    program.extend_from_slice(native);
    if let Some(compat) = compat {
        program.extend([jump(BPF_JEQ, ARCH_X86, 1, 0), skip(compat.len())]);
        program.extend_from_slice(compat);
    }
    // What no profile spoke about may not run at all.
    program.push(ret(libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Runs a program as the kernel would.
#[cfg(test)]
pub fn interpret(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCH => arch,
        _ => {
            let arg = args[((offset - ARGS) / 8) as usize];
            if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
        }
    };
    let (mut at, mut register) = (0, 0);
    loop {
        let instruction = &program[at];
        let (code, k) = (u32::from(instruction.code), instruction.k);
        at += 1;
        let branch = |taken: bool| usize::from(if taken { instruction.jt } else { instruction.jf });
        match code {
            c if c == BPF_LD | BPF_W | BPF_ABS => register = word(k),
            c if c == BPF_ALU | BPF_AND | BPF_K => register &= k,
            c if c == BPF_RET | BPF_K => return k,
            c if c == BPF_JMP | BPF_JA => at += k as usize,
            c if c == BPF_JMP | BPF_JEQ | BPF_K => at += branch(register == k),
            c if c == BPF_JMP | BPF_JGE | BPF_K => at += branch(register >= k),
            c if c == BPF_JMP | BPF_JGT | BPF_K => at += branch(register > k),
            other => panic!("unknown instruction {other:x}"),
        }
    }
}
