//! The **faults** that the bucket in memory makes, and how often.

#![allow(dead_code, missing_docs)]

/// What goes wrong, each so often of a thousand calls. The sum is at most a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The call fails and has done nothing.
    pub before: u32,
    /// It is done, the answer is lost, and the caller sees a failure. (LIST, HEAD and GET: as `before`.)
    pub lost: u32,
    /// It is done, the answer is lost, and the store recognises its own upload, as `S3Store` does by a HEAD. (PUT.)
    pub recognised: u32,
    /// It fails now and arrives after up to `late_by` further calls. (PUT.)
    pub late: u32,
    /// It succeeds, and arrives once more after up to `late_by` further calls. (PUT.)
    pub duplicated: u32,
    /// The body breaks off half-way. (GET.)
    pub broken: u32,
    /// Most calls that a late upload takes; 0 is as 1.
    pub late_by: usize,
}

impl Faults {
    pub const NONE: Self =
        Self { before: 0, lost: 0, recognised: 0, late: 0, duplicated: 0, broken: 0, late_by: 0 };

    /// A bad day: of ten calls three fail in one way or another.
    pub const MANY: Self =
        Self { before: 100, lost: 60, recognised: 40, late: 60, duplicated: 40, broken: 40, late_by: 12 };
}
