//! Values with a small language of their own, and values that may be a text or a table.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, de};

use crate::config::plan::{Amount, Bytes, DiskAmount, StatusRange};
use crate::config::units;

/// The schema keyword under which a unit's name is kept; [`expected`] and [`accepts`] know the names.
pub(crate) const UNIT: &str = "x-unit";

macro_rules! units {
    ($($name:ident($value:ty), $unit:literal, $types:tt, $expected:expr, $parse:expr, $example:literal;)*) => {
        $(
            #[derive(Clone, Debug)]
            pub(crate) struct $name(pub(crate) $value);

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = deserializer.deserialize_any(Typed)?;
                    $parse(&text).map(Self).ok_or_else(|| D::Error::custom(format!("expected {}", $expected)))
                }
            }

            impl JsonSchema for $name {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({ "type": $types, "x-unit": $unit, "examples": [$example] })
                }
            }
        )*

        /// What a value of this unit looks like, for messages.
        pub(crate) fn expected(unit: &str) -> Option<&'static str> {
            match unit {
                $($unit => Some($expected),)*
                _ => None,
            }
        }

        /// Whether a typed value is one of this unit.
        pub(crate) fn accepts(unit: &str, text: &str) -> bool {
            match unit {
                $($unit => $parse(text).is_some(),)*
                _ => true,
            }
        }
    };
}

units! {
    Span(Duration), "duration", "string", units::DURATION, units::duration, "5s";
    Budget((u32, Duration)), "budget", "string", units::BUDGET, units::budget, "3 per 1h";
    Window((u32, u32)), "window", "string", units::WINDOW, units::window, "3/5";
    Permille(u32), "share", ["string", "number"], units::SHARE, units::permille, "10%";
    Size(Bytes), "size", ["string", "integer"], units::SIZE, units::size, "512MiB";
    Limit(Amount), "amount", ["string", "integer"], units::AMOUNT, units::amount, "90% of 1GiB";
    Room(DiskAmount), "disk-amount", ["string", "integer"], units::DISK_AMOUNT, units::disk_amount, "10%";
    Percent(f64), "percent", "string", units::SHARE, |text: &str| units::percent(text, 100.0), "5%";
    Statuses(Vec<StatusRange>), "status", ["string", "integer"], units::STATUS, units::statuses, "200-299";
}

/// A text, or a number as a text.
struct Typed;

impl Visitor<'_> for Typed {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// A table, or a text where one value says it all.
#[derive(Clone, Debug)]
pub(crate) enum TextOr<T> {
    Text(String),
    Other(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a table")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOr<T>, A::Error> {
                T::deserialize(value::MapAccessDeserializer::new(map)).map(TextOr::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<TextOr<T>, A::Error> {
                T::deserialize(value::SeqAccessDeserializer::new(seq)).map(TextOr::Other)
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<TextOr<T>, E> {
                T::deserialize(value::BoolDeserializer::new(flag)).map(TextOr::Other)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for TextOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("TextOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<T>()] })
    }
}

/// A table, or `true` for one with the defaults and `false` for none.
#[derive(Clone, Debug)]
pub(crate) enum FlagOr<T> {
    Flag(bool),
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FlagOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = FlagOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a table")
            }

            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<FlagOr<T>, E> {
                Ok(FlagOr::Flag(flag))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FlagOr<T>, A::Error> {
                T::deserialize(value::MapAccessDeserializer::new(map)).map(FlagOr::Table)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for FlagOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("FlagOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<T>()] })
    }
}

/// Where a server's metrics page is: a path or a URL, or `false` for none.
pub(crate) type RawMetrics = TextOr<bool>;
