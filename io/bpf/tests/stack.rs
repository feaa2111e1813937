//! Do the programs fit the kernel's stack, as the oldest kernel that we support counts it?
//!
//! A chain of functions may use 512 bytes. Kernels before 6.10 round each function's part up to 32 bytes, later ones to 16,
//! so that a program may load here and not on Linux 6.1.
#![allow(clippy::unwrap_used)]

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};

static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath"));

const MOST: u64 = 512;
const ROUNDED_TO: u64 = 32;

/// Section and number of a function's first instruction.
type Place = (usize, u64);

struct Function {
    name: String,
    stack: u64,
    calls: BTreeSet<Place>,
}

/// An instruction of BPF: operation, registers, offset and immediate value.
struct Instruction {
    operation: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

fn instruction(bytes: &[u8]) -> Instruction {
    Instruction {
        operation: bytes[0],
        to: bytes[1] & 15,
        from: bytes[1] >> 4,
        offset: i16::from_le_bytes([bytes[2], bytes[3]]),
        value: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

const FRAME: u8 = 10;

/// How far below the frame's end does code reach? By loads and stores there, and by pointers that are made of it.
fn stack(code: &[Instruction]) -> u64 {
    let mut deepest = 0;
    let mut copies = BTreeSet::new();
    for i in code {
        match (i.operation, i.operation & 7) {
            (_, 2 | 3) if i.to == FRAME => deepest = deepest.max(-i64::from(i.offset)),
            (_, 1) if i.from == FRAME => deepest = deepest.max(-i64::from(i.offset)),
            (0xbf, _) if i.from == FRAME => {
                copies.insert(i.to);
            }
            (0x07, _) if copies.remove(&i.to) => deepest = deepest.max(-i64::from(i.value)),
            _ => {}
        }
    }
    deepest.unsigned_abs()
}

fn functions(file: &object::File<'_>) -> BTreeMap<Place, Function> {
    let mut all = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let index = symbol.section_index().unwrap();
        let section = file.section_by_index(index).unwrap();
        let start = symbol.address() as usize;
        let bytes = &section.data().unwrap()[start..start + symbol.size() as usize];
        let code: Vec<Instruction> = bytes.chunks(8).map(instruction).collect();
        let relocated: BTreeMap<u64, RelocationTarget> =
            section.relocations().map(|(at, relocation)| (at / 8, relocation.target())).collect();
        let mut calls = BTreeSet::new();
        for (at, i) in (start as u64 / 8..).zip(&code).filter(|(_, i)| i.operation == 0x85 && i.from == 1) {
            let relative = |base: u64| base.wrapping_add_signed(i64::from(i.value) + 1);
            calls.insert(match relocated.get(&at) {
                Some(RelocationTarget::Symbol(target)) => {
                    let target = file.symbol_by_index(*target).unwrap();
                    let first = target.address() / 8;
                    let of_section = target.kind() == SymbolKind::Section;
                    (target.section_index().unwrap().0, if of_section { relative(first) } else { first })
                }
                _ => (index.0, relative(at)),
            });
        }
        let name = symbol.name().unwrap().to_owned();
        all.insert((index.0, start as u64 / 8), Function { name, stack: stack(&code), calls });
    }
    all
}

/// The chain of calls that needs most, with what each function needs.
fn deepest(all: &BTreeMap<Place, Function>, at: Place) -> (u64, Vec<String>) {
    let function = all.get(&at).unwrap_or_else(|| panic!("a call to {at:?}, where no function begins"));
    let below = function.calls.iter().map(|call| deepest(all, *call)).max_by_key(|(bytes, _)| *bytes);
    let (bytes, mut chain) = below.unwrap_or_default();
    chain.insert(0, format!("{} of {}", function.stack, function.name));
    (bytes + function.stack.max(1).next_multiple_of(ROUNDED_TO), chain)
}

#[test]
fn every_program_fits_the_stack_of_linux_6_1() {
    let file = object::File::parse(PROGRAMS).unwrap();
    let all = functions(&file);
    let text = file.section_by_name(".text").unwrap().index().0;
    let mut programs = 0;
    for (place, function) in all.iter().filter(|((section, _), _)| *section != text) {
        let (bytes, chain) = deepest(&all, *place);
        assert!(bytes <= MOST, "{} needs {bytes} bytes of stack:\n  {}", function.name, chain.join("\n  "));
        programs += 1;
    }
    assert_eq!(programs, bpf::Hook::ALL.len() + bpf::SocketHook::ALL.len());
    assert!(all.values().any(|function| function.stack > 100), "the stack is seen at all");
}
