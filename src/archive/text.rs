//! Bytes in JSON: text as a string, and what is no text as the digits of its bytes.

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names, links and attributes are bytes to a filesystem. Those that are UTF-8 are a JSON string; others are
/// `{"hex":"ff00"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Text(pub Vec<u8>);

const HEX: &str = "hex";

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(HEX, &hex(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or {\"hex\":...}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.as_bytes().to_vec()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                let (key, digits) = map
                    .next_entry::<String, String>()?
                    .ok_or_else(|| de::Error::custom("an empty object"))?;
                if key != HEX || map.next_key::<String>()?.is_some() {
                    return Err(de::Error::custom("an object with other keys than 'hex'"));
                }
                unhex(&digits).map(Text).ok_or_else(|| de::Error::custom("digits that are not hexadecimal"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits =
        bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

/// The bytes that [`hex`] has written; `None` for anything else, capital letters included.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(value(*pair.first()?)? << 4 | value(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_a_string_and_other_bytes_are_digits() {
        let json = |bytes: &[u8]| serde_json::to_string(&Text(bytes.to_vec())).unwrap();
        assert_eq!(json("bücher\n".as_bytes()), "\"bücher\\n\"");
        assert_eq!(json(b"\xff\0"), "{\"hex\":\"ff00\"}");
        for wrong in
            ["{\"hex\":\"f\"}", "{\"hex\":\"FF\"}", "{}", "{\"hex\":\"ff\",\"a\":\"\"}", "{\"b\":\"\"}", "1"]
        {
            assert!(serde_json::from_str::<Text>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Text(bytes.clone())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap().0, bytes);
        }
    }
}
