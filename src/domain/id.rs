//! Identifiers: TypeIDs, a prefix and a UUIDv7 in Crockford base32 (contract §2).

use std::{sync::Mutex, time::Duration};

use type_safe_id::{StaticType, TypeSafeId};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use uuid::{ContextV7, Uuid};

use super::time::Timestamp;

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident = $kind:ident $prefix:literal;)*) => {
        /// What an id belongs to.
        pub mod kind {
            $(
                #[doc = concat!("Ids that start with `", $prefix, "_`.")]
                #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
                pub struct $kind;

                impl super::StaticType for $kind {
                    const TYPE: &'static str = $prefix;
                }

                impl utoipa::PartialSchema for $kind {
                    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                        super::schema($prefix)
                    }
                }

                impl utoipa::ToSchema for $kind {
                    fn name() -> std::borrow::Cow<'static, str> {
                        stringify!($id).into()
                    }
                }
            )*
        }
        $($(#[$doc])* pub type $id = TypeSafeId<kind::$kind>;)*
    };
}

ids! {
    /// A tenant.
    AppId = App "app";
    /// An app key.
    KeyId = Key "key";
    /// An app installation.
    DeviceId = Device "dev";
    /// An event.
    EventId = Event "evt";
    /// A wake; its UUID is the `apns-id` of every try.
    WakeId = Wake "wake";
    /// One call to a provider.
    AttemptId = Attempt "att";
    /// A line of a device's timeline.
    MomentId = Moment "mom";
    /// Work that goes on after its request.
    OperationId = Operation "op";
}

/// What an id looks like: a TypeID (github.com/jetify-com/typeid, specification 0.3: the suffix is 26 characters of lower-case base32).
fn schema(prefix: &str) -> RefOr<Schema> {
    let example = format!("{prefix}_01m4y3vkk5f5r9vts0xg5mfh1q");
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$")))
        .examples([example])
        .into()
}

/// Keeps ids of one millisecond in the order they were made (RFC 9562 §6.2).
static ORDER: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// A fresh id whose UUIDv7 carries `now`.
pub fn new<T: StaticType>(now: Timestamp) -> TypeSafeId<T> {
    let since_epoch = Duration::from_millis(u64::try_from(now.as_ms()).unwrap_or(0));
    let instant = uuid::Timestamp::from_unix(&ORDER, since_epoch.as_secs(), since_epoch.subsec_nanos());
    TypeSafeId::from_uuid(Uuid::new_v7(instant))
}

/// The least id of a millisecond: the first 48 bits of a UUIDv7 are its time (RFC 9562 §5.7), so ids below it are older.
pub fn least<T: StaticType>(at: Timestamp) -> TypeSafeId<T> {
    TypeSafeId::from_uuid(Uuid::from_u128(u128::from(at.as_ms().unsigned_abs()) << 80))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_id_lies_between_the_least_of_its_millisecond_and_of_the_next() {
        let at = Timestamp::from_ms(1_790_000_000_000);
        let made = new::<kind::Attempt>(at).to_string();
        assert!(made >= least::<kind::Attempt>(at).to_string());
        assert!(made < least::<kind::Attempt>(at + Duration::from_millis(1)).to_string());
    }

    #[test]
    fn ids_carry_their_prefix_and_sort_by_time() {
        let early: DeviceId = new(Timestamp::from_ms(1_700_000_000_000));
        let late: DeviceId = new(Timestamp::from_ms(1_700_000_000_001));
        let later: DeviceId = new(Timestamp::from_ms(1_700_000_000_001));
        assert!(early.to_string() < late.to_string() && late.to_string() < later.to_string());
        assert!(early.to_string().starts_with("dev_"));
        assert_eq!(early.to_string().parse::<DeviceId>().unwrap(), early);
        assert!(early.to_string().parse::<AppId>().is_err());
    }
}
