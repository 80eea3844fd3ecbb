//! The **schema** of what people write: texts that take no type of their own, as the definitions tell them to the API
//! server. `cargo xtask schemas` makes the definitions of these and of the types that read a spec and an Input.

pub mod status;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A length of time.
pub(crate) const SPAN: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d) ?)+$";
/// A public age key.
pub(crate) const RECIPIENT: &str = "^age1[02-9ac-hj-np-z]{58}$";
/// A chart's version.
const VERSION: &str = r"^v?[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?$";
/// A namespace, a Service.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A Kubernetes object.
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A restore point.
const PIN: &str = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";
/// A bucket.
const BUCKET: &str = "^[a-z0-9][-.a-z0-9]*[a-z0-9]$";
/// Cron's five fields, or a word for them.
const CRON: &str =
    r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|([0-9A-Za-z*?,/-]+ +){4}[0-9A-Za-z*?,/-]+)$";
/// The value of a Kubernetes label.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Texts by what they are, for `#[schemars(with = "…")]`.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $schema:tt)*) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

texts! {
    /// A chart's version.
    ChartVersion: {"type": "string", "pattern": VERSION, "maxLength": 64}
    /// A namespace, a Service.
    Label: {"type": "string", "pattern": LABEL, "maxLength": 63}
    /// The value of a Kubernetes label.
    LabelValue: {"type": "string", "pattern": LABEL_VALUE, "maxLength": 63}
    /// A Kubernetes object.
    ObjectName: {"type": "string", "pattern": SUBDOMAIN, "maxLength": 253}
    /// A restore point.
    PinName: {"type": "string", "pattern": PIN, "maxLength": 63}
    /// A bucket.
    BucketName: {"type": "string", "pattern": BUCKET, "minLength": 3, "maxLength": 63}
    /// A folder in a bucket.
    Folder: {"type": "string", "maxLength": 256}
    /// When, as cron writes it.
    Schedule: {"type": "string", "pattern": CRON, "maxLength": 64}
    /// The name of a restore.
    RestoreId: {"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 128}
    /// A moment.
    Moment: {"type": "string", "format": "date-time"}
    /// An address.
    Address: {"type": "string", "pattern": "^https?://", "maxLength": 512}
}
