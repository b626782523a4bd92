//! The platforms that agent CLIs are published for.

use std::fmt;
use std::str::FromStr;

use super::error::ToolchainError;

/// A platform that agent CLIs are published for, written as in the package names: `linux-x64`,
/// `linux-arm64-musl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// The processor.
    pub arch: Arch,
    /// The C library that the sandbox's image holds. The wrong one looks like a missing file.
    pub libc: Libc,
}

/// A processor architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// `x86_64`.
    X64,
    /// `aarch64`.
    Arm64,
}

/// A C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Libc {
    /// Debian, Ubuntu, Fedora and most others.
    Glibc,
    /// Alpine.
    Musl,
}

/// A text that names no [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a platform of the agent CLIs; use one of linux-x64, linux-x64-musl, \
     linux-arm64, linux-arm64-musl"
)]
pub struct UnknownTarget(String);

impl Target {
    /// Every target there is.
    pub const ALL: [Self; 4] = [
        Self { arch: Arch::X64, libc: Libc::Glibc },
        Self { arch: Arch::X64, libc: Libc::Musl },
        Self { arch: Arch::Arm64, libc: Libc::Glibc },
        Self { arch: Arch::Arm64, libc: Libc::Musl },
    ];

    /// A Linux on a processor that is named as Rust names it.
    ///
    /// # Errors
    /// [`ToolchainError::UnsupportedHost`] where no agent CLI is published for it.
    pub fn linux(arch: &str, libc: Libc) -> Result<Self, ToolchainError> {
        Self::of_host("linux", arch).map(|target| Self { libc, ..target })
    }

    /// This machine, with glibc. What counts in the end is the sandbox's image.
    ///
    /// # Errors
    /// [`ToolchainError::UnsupportedHost`] where no agent CLI is published for it.
    pub fn host() -> Result<Self, ToolchainError> {
        Self::of_host(std::env::consts::OS, std::env::consts::ARCH)
    }

    fn of_host(os: &str, arch: &str) -> Result<Self, ToolchainError> {
        match (os, arch) {
            ("linux", "x86_64") => Ok(Self { arch: Arch::X64, libc: Libc::Glibc }),
            ("linux", "aarch64") => Ok(Self { arch: Arch::Arm64, libc: Libc::Glibc }),
            _ => Err(ToolchainError::UnsupportedHost { os: os.to_owned(), arch: arch.to_owned() }),
        }
    }

    fn as_str(self) -> &'static str {
        match (self.arch, self.libc) {
            (Arch::X64, Libc::Glibc) => "linux-x64",
            (Arch::X64, Libc::Musl) => "linux-x64-musl",
            (Arch::Arm64, Libc::Glibc) => "linux-arm64",
            (Arch::Arm64, Libc::Musl) => "linux-arm64-musl",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|target| target.as_str() == text)
            .ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_read_as_it_is_written() {
        let names = Target::ALL.map(|target| target.to_string());
        assert_eq!(names, ["linux-x64", "linux-x64-musl", "linux-arm64", "linux-arm64-musl"]);
        for target in Target::ALL {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn another_text_is_not_a_target() {
        for text in ["", "darwin-arm64", "linux-x64 ", "LINUX-X64", "linux"] {
            assert_eq!(text.parse::<Target>(), Err(UnknownTarget(text.to_owned())));
        }
    }

    #[test]
    fn only_linux_on_two_processors_is_a_host() {
        let of_host = |os, arch| Target::of_host(os, arch).map(Target::as_str).ok();
        assert_eq!(of_host("linux", "x86_64"), Some("linux-x64"));
        assert_eq!(of_host("linux", "aarch64"), Some("linux-arm64"));
        assert_eq!(of_host("linux", "riscv64"), None);
        let error = Target::of_host("macos", "aarch64").unwrap_err();
        assert_eq!(error.to_string(), "no agent CLI is published for macos on aarch64");
    }
}
