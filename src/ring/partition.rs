//! From a key to its partition.
//!
//! The part of a key that decides where it lives is its *routing key*: the hash tag, as Redis Cluster defines it, else
//! the whole key. Keys with one hash tag live together, so commands on several of them stay native.
//!
//! The routing key is hashed with XXH3 (64 bits, no seed), and the 64-bit range is cut into `P` stretches of equal
//! length, numbered from 0: `partition = hash * P >> 64`. A multiplication, not a division, and no bias for any `P`.
//!
//! A key that begins with `rf@` and four hexadecimal digits is *pinned*: it belongs to the partition of that number, modulo `P`. So are
//! named, on the nodes, the parts of a queue that is spread over several of them.
//!
//! **This must never change.** Data on the nodes lies where these functions said it lies; a release that answered
//! differently would look for it elsewhere. The golden test below pins the answer.

use xxhash_rust::xxh3::xxh3_64;

/// The part of `key` that decides its partition.
///
/// What stands between the first `{` and the first `}` after it, unless that is nothing; else the whole key. This is
/// Redis Cluster's rule (`CLUSTER KEYSLOT`), so drivers written with hash tags keep their keys together.
#[inline]
pub fn routing_key(key: &[u8]) -> &[u8] {
    if let Some((pin, _)) = pin_of(key) {
        return pin;
    }
    let Some(after_open) = find(key, b'{').and_then(|open| key.get(open + 1..)) else {
        return key;
    };
    match find(after_open, b'}') {
        None | Some(0) => key,
        Some(close) => after_open.get(..close).unwrap_or(key),
    }
}

/// The partition, `0..partitions`, that `key` belongs to. `partitions` is fixed when a pool is created; with 0 or 1
/// there is only partition 0.
#[inline]
pub fn partition_of(key: &[u8], partitions: u16) -> u16 {
    match pinned_to(key) {
        Some(partition) => partition.checked_rem(partitions).unwrap_or(0),
        None => partition_of_route(routing_key(key), partitions),
    }
}

/// The partition of a routing key.
#[inline]
pub(super) fn partition_of_route(route: &[u8], partitions: u16) -> u16 {
    let hash = xxh3_64(route);
    // The product is below 2^64 * partitions, so its upper half is below `partitions` and fits.
    ((u128::from(hash) * u128::from(partitions)) >> 64) as u16
}

/// What pinned keys begin with.
pub const PIN: &[u8] = b"rf@";

/// Length of a pin: `rf@` and four digits.
const PIN_LEN: usize = 7;

/// The number that a pinned key names.
#[inline]
pub fn pinned_to(key: &[u8]) -> Option<u16> {
    pin_of(key).map(|(_, partition)| partition)
}

#[inline]
fn pin_of(key: &[u8]) -> Option<(&[u8], u16)> {
    if !key.starts_with(PIN) {
        return None;
    }
    let pin = key.get(..PIN_LEN)?;
    let digits = std::str::from_utf8(pin.get(PIN.len()..)?).ok()?;
    let is_hex = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    Some((pin, u16::from_str_radix(digits, 16).ok().filter(|_| is_hex)?))
}

/// Where `byte` first stands in `text`. Eight bytes at a time: this runs for every key of every command, most keys have
/// no brace, and looking at single bytes takes longer than the hash does.
#[inline]
fn find(text: &[u8], byte: u8) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = ONES << 7;
    let wanted = ONES * u64::from(byte);
    let (chunks, tail) = text.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let difference = u64::from_le_bytes(*chunk) ^ wanted;
        // The lowest set bit marks the first zero byte of `difference`; bits above it may be false.
        let zero_bytes = difference.wrapping_sub(ONES) & !difference & HIGH_BITS;
        if zero_bytes != 0 {
            return Some(index * 8 + zero_bytes.trailing_zeros() as usize / 8);
        }
    }
    tail.iter()
        .position(|&other| other == byte)
        .map(|offset| chunks.len() * 8 + offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hash_tags_are_those_of_redis_cluster() {
        for (key, expected) in [
            ("foo", "foo"),
            ("", ""),
            ("{user1000}.following", "user1000"),
            ("{user1000}.followers", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo}{bar}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar", "foo}bar"),
            ("{}", "{}"),
            ("{", "{"),
            ("a long prefix that fills chunks {tag} and more", "tag"),
        ] {
            assert_eq!(routing_key(key.as_bytes()), expected.as_bytes(), "{key}");
        }
    }

    /// Values of the first release. A difference here means that every stored key would be looked for elsewhere.
    #[test]
    fn partitions_never_change() {
        for (key, of_256, of_4096, of_12) in GOLDEN {
            let found = [256, 4096, 12].map(|partitions| partition_of(key.as_bytes(), partitions));
            assert_eq!(found, [of_256, of_4096, of_12], "{key}");
        }
    }

    const GOLDEN: [(&str, u16, u16, u16); 8] = [
        ("", 45, 720, 2),
        ("a", 230, 3692, 10),
        ("foo", 171, 2742, 8),
        ("queue:orders", 183, 2929, 8),
        ("{orders}:1", 168, 2696, 7),
        ("orders", 168, 2696, 7),
        ("5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b11", 117, 1881, 5),
        ("{}{}", 151, 2418, 7),
    ];

    #[test]
    fn a_pinned_key_names_its_partition() {
        for (key, partition) in [
            ("rf@0007:5083c0f1-0e9c-4a1c-8d1e-5c9a7f1f0b11", Some(7)),
            ("rf@00ff.0001:p.q.messages", Some(255)),
            ("rf@00FF:x", None),
            ("rf@00f", None),
            ("rf@+0ff:x", None),
            ("rf@:x", None),
            ("xrf@0007:x", None),
        ] {
            assert_eq!(pinned_to(key.as_bytes()), partition, "{key}");
            if let Some(partition) = partition {
                assert_eq!(partition_of(key.as_bytes(), 4096), partition);
                assert_eq!(partition_of(key.as_bytes(), 5), partition % 5);
                assert_eq!(routing_key(key.as_bytes()), &key.as_bytes()[..PIN_LEN]);
            }
        }
        assert_eq!(partition_of(b"rf@0007:x", 0), 0);
    }

    /// XXH3 changes its method above 16, 128 and 240 bytes.
    #[test]
    fn partitions_of_long_keys_never_change() {
        let found = [17, 129, 241, 5000].map(|len| partition_of(&vec![b'k'; len], 4096));
        assert_eq!(found, [79, 2451, 621, 583]);
    }

    #[test]
    fn the_edges_of_the_range_are_reached_and_not_passed() {
        for partitions in [1, 2, 3, 12, 256, 1000, 4096, u16::MAX] {
            let mut seen = vec![false; usize::from(partitions)];
            for key in 0_u32..300_000 {
                let partition = partition_of(&key.to_le_bytes(), partitions);
                assert!(partition < partitions);
                seen[usize::from(partition)] = true;
            }
            assert!(seen[0] && seen[usize::from(partitions) - 1], "{partitions}");
        }
        assert_eq!(partition_of(b"any", 0), 0);
    }

    #[test]
    fn keys_spread_evenly() {
        let mut keys_per_partition = vec![0_u32; 256];
        for key in 0..256_000 {
            keys_per_partition[usize::from(partition_of(format!("queue:{key}").as_bytes(), 256))] += 1;
        }
        // 1000 expected, standard deviation 32: five of them.
        assert!(
            keys_per_partition
                .iter()
                .all(|count| (840..=1160).contains(count)),
            "{keys_per_partition:?}"
        );
    }

    proptest! {
        #[test]
        fn find_agrees_with_looking_at_single_bytes(text in proptest::collection::vec(0x78_u8..0x7f, 0..40), byte in 0x78_u8..0x7f) {
            prop_assert_eq!(find(&text, byte), text.iter().position(|&other| other == byte));
        }

        #[test]
        fn find_is_not_misled_by_any_byte(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(find(&text, b'{'), text.iter().position(|&other| other == b'{'));
        }

        #[test]
        fn a_key_and_its_tag_share_a_partition(tag in "[a-z0-9.:-]{1,20}", before in "[a-z.]{0,12}", after in "[a-z{}.]{0,12}") {
            let key = format!("{before}{{{tag}}}{after}");
            prop_assert_eq!(partition_of(key.as_bytes(), 256), partition_of(tag.as_bytes(), 256));
        }
    }
}
