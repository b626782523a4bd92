//! The system calls that a Bubblewrap sandbox does not get, as a BPF program.
//!
//! Docker brings a filter of its own; Bubblewrap has none. The list holds what opens the kernel's
//! large and seldom used doors (namespaces, mounts, BPF, keys, modules) and what would let one
//! process of the agent steer another, which holds the descriptor of the output.

/// Answer: let the call through.
const ALLOW: u32 = 0x7fff_0000;
/// Answer: fail with the error in the low bits.
const ERRNO: u32 = 0x0005_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Load a word of the call's description.
const LOAD: u16 = 0x20;
/// Jump if equal to the constant.
const JUMP_IF_EQUAL: u16 = 0x15;
/// Jump if greater than or equal to the constant.
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// Jump if a bit of the constant is set.
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Places in the kernel's `seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
/// The low half of the first argument (both architectures are little-endian).
const FIRST_ARGUMENT_OFFSET: u32 = 16;

/// The flags of `clone` that make namespaces.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// On x86-64, numbers from here on are the x32 interface, which would slip past the list.
const X32_START: u32 = 0x4000_0000;

/// What differs between processor architectures.
#[derive(Debug)]
struct Architecture {
    /// The kernel's word for it.
    audit: u32,
    clone: u32,
    has_x32: bool,
    refused: &'static [u32],
}

/// Newer calls have the same number everywhere.
const CLONE3: u32 = 435;
/// io_uring_{setup,enter,register}, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
/// pidfd_getfd, mount_setattr.
const REFUSED_EVERYWHERE: [u32; 11] = [425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442];

const X86_64: Architecture = Architecture {
    audit: 0xc000_003e,
    clone: 56,
    has_x32: true,
    refused: &[
        101, // ptrace
        154, // modify_ldt
        155, // pivot_root
        161, // chroot
        163, // acct
        165, // mount
        166, // umount2
        167, // swapon
        168, // swapoff
        169, // reboot
        172, // iopl
        173, // ioperm
        175, // init_module
        176, // delete_module
        179, // quotactl
        212, // lookup_dcookie
        246, // kexec_load
        248, // add_key
        249, // request_key
        250, // keyctl
        272, // unshare
        298, // perf_event_open
        303, // name_to_handle_at
        304, // open_by_handle_at
        308, // setns
        310, // process_vm_readv
        311, // process_vm_writev
        312, // kcmp
        313, // finit_module
        320, // kexec_file_load
        321, // bpf
        323, // userfaultfd
    ],
};

const AARCH64: Architecture = Architecture {
    audit: 0xc000_00b7,
    clone: 220,
    has_x32: false,
    refused: &[
        18,  // lookup_dcookie
        39,  // umount2
        40,  // mount
        41,  // pivot_root
        51,  // chroot
        60,  // quotactl
        89,  // acct
        97,  // unshare
        104, // kexec_load
        105, // init_module
        106, // delete_module
        117, // ptrace
        142, // reboot
        217, // add_key
        218, // request_key
        219, // keyctl
        224, // swapon
        225, // swapoff
        241, // perf_event_open
        264, // name_to_handle_at
        265, // open_by_handle_at
        268, // setns
        270, // process_vm_readv
        271, // process_vm_writev
        272, // kcmp
        273, // finit_module
        280, // bpf
        282, // userfaultfd
        294, // kexec_file_load
    ],
};

/// The filter for this machine, as the bytes that `bwrap --seccomp` reads.
pub(super) fn filter() -> Option<Vec<u8>> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => &X86_64,
        "aarch64" => &AARCH64,
        _ => return None,
    };
    Some(program(architecture).iter().flat_map(Instruction::bytes).collect())
}

/// One instruction: code, jump if true, jump if false, constant.
#[derive(Debug, Clone, Copy)]
struct Instruction(u16, u8, u8, u32);

impl Instruction {
    fn bytes(&self) -> [u8; 8] {
        let [a, b] = self.0.to_ne_bytes();
        let [c, d, e, f] = self.3.to_ne_bytes();
        [a, b, self.1, self.2, c, d, e, f]
    }
}

fn program(architecture: &Architecture) -> Vec<Instruction> {
    let refuse = Instruction(RETURN, 0, 0, ERRNO | EPERM);
    let mut program = vec![
        Instruction(LOAD, 0, 0, ARCHITECTURE_OFFSET),
        Instruction(JUMP_IF_EQUAL, 1, 0, architecture.audit),
        refuse,
        Instruction(LOAD, 0, 0, NUMBER_OFFSET),
    ];
    if architecture.has_x32 {
        program.extend([Instruction(JUMP_IF_AT_LEAST, 0, 1, X32_START), refuse]);
    }
    for &number in architecture.refused.iter().chain(&REFUSED_EVERYWHERE) {
        program.extend([Instruction(JUMP_IF_EQUAL, 0, 1, number), refuse]);
    }
    program.extend([
        // Its flags lie in memory, out of a filter's sight. The C library falls back to `clone`.
        Instruction(JUMP_IF_EQUAL, 0, 1, CLONE3),
        Instruction(RETURN, 0, 0, ERRNO | ENOSYS),
        Instruction(JUMP_IF_EQUAL, 0, 3, architecture.clone),
        Instruction(LOAD, 0, 0, FIRST_ARGUMENT_OFFSET),
        Instruction(JUMP_IF_ANY_BIT, 0, 1, NEW_NAMESPACES),
        refuse,
        Instruction(RETURN, 0, 0, ALLOW),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program the way the kernel does.
    fn verdict(architecture: &Architecture, audit: u32, number: u32, argument: u32) -> u32 {
        let program = program(architecture);
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let Instruction(code, yes, no, constant) = program[at];
            let holds = match code {
                LOAD => {
                    accumulator = match constant {
                        NUMBER_OFFSET => number,
                        ARCHITECTURE_OFFSET => audit,
                        FIRST_ARGUMENT_OFFSET => argument,
                        other => panic!("nothing lies at {other}"),
                    };
                    at += 1;
                    continue;
                }
                RETURN => return constant,
                JUMP_IF_EQUAL => accumulator == constant,
                JUMP_IF_AT_LEAST => accumulator >= constant,
                JUMP_IF_ANY_BIT => accumulator & constant != 0,
                other => panic!("no instruction {other}"),
            };
            at += 1 + usize::from(if holds { yes } else { no });
        }
    }

    const REFUSE: u32 = ERRNO | EPERM;

    #[test]
    fn every_call_of_the_list_is_refused_and_its_neighbours_are_not() {
        for architecture in [&X86_64, &AARCH64] {
            let refused: Vec<u32> =
                architecture.refused.iter().chain(&REFUSED_EVERYWHERE).copied().collect();
            for number in 0..500 {
                let expected = match number {
                    CLONE3 => ERRNO | ENOSYS,
                    number if refused.contains(&number) => REFUSE,
                    _ => ALLOW,
                };
                assert_eq!(verdict(architecture, architecture.audit, number, 0), expected);
            }
        }
    }

    #[test]
    fn a_new_process_is_let_through_and_a_new_namespace_is_not() {
        const NEW_USER: u32 = 0x1000_0000;
        const THREAD: u32 = 0x003d_0f00;
        for architecture in [&X86_64, &AARCH64] {
            let clone =
                |flags| verdict(architecture, architecture.audit, architecture.clone, flags);
            assert_eq!([clone(17), clone(THREAD), clone(NEW_USER | 17)], [ALLOW, ALLOW, REFUSE]);
        }
    }

    #[test]
    fn another_interface_to_the_kernel_does_not_slip_past() {
        assert_eq!(verdict(&X86_64, 0x4000_0003, 1, 0), REFUSE);
        assert_eq!(verdict(&X86_64, X86_64.audit, X32_START + 1, 0), REFUSE);
    }
}
