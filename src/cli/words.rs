//! How numbers are said to people.

use bytesize::ByteSize;

/// `1.2 GiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `1 copy`, `2 copies`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`: as exact as an estimate is.
pub(super) fn seconds(s: u64) -> String {
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, min, s) => format!("{min} min {s} s"),
        (h, min, _) => format!("{h} h {min} min"),
    }
}

/// `850 us`, `1.3 ms`.
pub(super) fn micros(us: u64) -> String {
    if us < 1000 {
        format!("{us} us")
    } else {
        format!("{}.{} ms", us / 1000, us % 1000 / 100)
    }
}

/// A reason may repeat what a server has said: nothing in it may steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_do() {
        assert_eq!(
            [size(0), size(1023), size(1536), size(9_876_543_210)],
            ["0 B", "1023 B", "1.5 KiB", "9.2 GiB"]
        );
        assert_eq!(
            [seconds(0), seconds(59), seconds(200), seconds(7530)],
            ["0 s", "59 s", "3 min 20 s", "2 h 5 min"]
        );
        assert_eq!(
            [micros(850), micros(1349), micros(20_000)],
            ["850 us", "1.3 ms", "20.0 ms"]
        );
        assert_eq!(
            [count(1, "copy", "copies"), count(2, "copy", "copies")],
            ["1 copy", "2 copies"]
        );
        assert_eq!(printable("a\x1b[2Jb\nc"), "a?[2Jb?c");
    }
}
