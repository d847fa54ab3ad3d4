//! Numbers written digit by digit, for texts of which an answer has thousands: by way of a format each
//! would take longer than all else in its line.

/// Writes a number in base `BASE`, at most 16, with zeros before it up to `width`, at most 20.
pub(crate) fn push_digits<const BASE: u64>(text: &mut String, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut from = digits.len().saturating_sub(width);
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        if number == 0 {
            break;
        }
        *digit = b"0123456789abcdef"[usize::try_from(number % BASE).unwrap_or_default()];
        number /= BASE;
        from = from.min(at);
    }
    text.push_str(std::str::from_utf8(&digits[from..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written<const BASE: u64>(number: u64, width: usize) -> String {
        let mut text = String::from("x");
        push_digits::<BASE>(&mut text, number, width);
        text
    }

    #[test]
    fn the_ends_of_the_range_are_written_whole() {
        assert_eq!(written::<10>(u64::MAX, 1), format!("x{}", u64::MAX));
        assert_eq!(written::<16>(u64::MAX, 16), "xffffffffffffffff");
        assert_eq!(written::<10>(0, 1), "x0");
        assert_eq!(written::<10>(0, 14), "x00000000000000");
    }

    proptest! {
        #[test]
        fn digits_are_those_of_a_format(number in any::<u64>(), width in 1..=20_usize) {
            prop_assert_eq!(written::<10>(number, width), format!("x{number:0width$}"));
            prop_assert_eq!(written::<16>(number, width), format!("x{number:0width$x}"));
        }
    }
}
