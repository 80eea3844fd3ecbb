//! A **schedule**, as cron writes it: five fields, or a word such as `@daily`. A CronJob with a wrong one is
//! refused by the API server when it is too late to tell whoever wrote it.

use crate::fatal::Fatal;

/// Words for a whole schedule.
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Name of each field, its numbers, and its names, which count from the first number.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &MONTHS),
    ("day of the week", 0, 6, &DAYS),
];

/// Checks one; `field` is what it is called.
pub fn check(field: &str, text: &str) -> Result<(), Fatal> {
    let refuse = |cause: String| {
        Err(Fatal::new(field, cause, "write it as cron does, such as \"0 3 * * *\" or @daily, in UTC"))
    };
    if text.starts_with('@') {
        return if WORDS.contains(&text) { Ok(()) } else { refuse("it is no word that cron knows".into()) };
    }
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return refuse(format!("cron reads five fields, and not {}", parts.len()));
    }
    for (part, (name, first, last, names)) in parts.iter().zip(FIELDS) {
        if !part.split(',').all(|item| is_item(item, first, last, names)) {
            return refuse(format!("its {name} is none"));
        }
    }
    Ok(())
}

/// `*`, a number, or a range, each with a step if need be.
fn is_item(item: &str, first: u32, last: u32, names: &[&str]) -> bool {
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    if step.is_some_and(|step| !is_number(step) || step.parse::<u32>().is_ok_and(|step| step == 0)) {
        return false;
    }
    let value = |text: &str| {
        let name = names.iter().zip(first..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        let number = || text.parse::<u32>().ok().filter(|_| is_number(text));
        name.map(|(_, number)| number).or_else(number).filter(|number| (first..=last).contains(number))
    };
    match range.split_once('-') {
        None if range == "*" || range == "?" => true,
        None => value(range).is_some(),
        Some((begin, end)) => matches!((value(begin), value(end)), (Some(begin), Some(end)) if begin <= end),
    }
}

fn is_number(text: &str) -> bool {
    (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_takes_is_taken() {
        for text in
            ["0 3 * * *", "*/15 0-6,22-23 1,15 jan-MAR mon-fri", "0 0 ? * 0", "5/10 * * * *", "@daily"]
        {
            assert!(check("field", text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_it_refuses_is_refused_before() {
        for (text, cause) in [
            ("", "cron reads five fields, and not 0"),
            ("0 3 * *", "cron reads five fields, and not 4"),
            ("0 0 3 * * *", "cron reads five fields, and not 6"),
            ("60 3 * * *", "its minute"),
            ("0 24 * * *", "its hour"),
            ("0 3 0 * *", "its day of the month"),
            ("0 3 * 13 *", "its month"),
            ("0 3 * * 7", "its day of the week"),
            ("0 6-3 * * *", "its hour"),
            ("*/0 * * * *", "its minute"),
            ("+5 * * * *", "its minute"),
            (", * * * *", "its minute"),
            ("0 3 * * mon-", "its day of the week"),
            ("@often", "it is no word"),
            ("@every 1h", "it is no word"),
            ("TZ=Europe/Berlin 0 3 * * *", "cron reads five fields, and not 6"),
        ] {
            let message = check("spec.backup.verify.schedule", text).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("spec.backup.verify.schedule: {cause}")),
                "{text}: {message}"
            );
        }
    }
}
