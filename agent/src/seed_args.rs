//! The Go program's command line (`-accessKey X -list`), translated into today's, so that existing pods and
//! habits go on working.

use std::ffi::OsString;

/// The Go program's flags that took a value, and today's names.
const WITH_VALUE: [(&str, &str); 10] = [
    ("backupFile", "--database"),
    ("backupInterval", "--snapshot-interval"),
    ("bucketName", "--bucket"),
    ("accessKey", "--access-key"),
    ("secretKey", "--secret-key"),
    ("endpoint", "--endpoint"),
    ("region", "--region"),
    ("encKey", "--enc-key"),
    ("trace", "--trace"),
    ("insecure", "--insecure"),
];

/// Those of them that are on or off.
const SWITCHES: [&str; 2] = ["trace", "insecure"];

/// Its flags that chose what to do.
const VERBS: [&str; 3] = ["list", "restore", "decrypt"];

/// Translates an argument list (program name first). What holds none of the Go program's flags, or has no
/// argument at all while `BUCKET_NAME` is set (its way to run as a sidecar), comes back as it was, or as `run`.
pub fn translate(typed: Vec<OsString>, bucket_in_environment: bool) -> Vec<OsString> {
    if typed.len() <= 1 {
        let run = bucket_in_environment.then(|| OsString::from("run"));
        return typed.into_iter().chain(run).collect();
    }
    if !typed.iter().skip(1).any(|argument| seed_flag(argument).is_some()) {
        return typed;
    }
    let mut arguments = typed.into_iter().peekable();
    let mut translated: Vec<OsString> = arguments.next().into_iter().collect();
    let (mut verb, mut file) = (None, None);
    while let Some(argument) = arguments.next() {
        let Some((flag, inline)) = seed_flag(&argument) else {
            translated.push(argument);
            continue;
        };
        if let Some(known) = VERBS.iter().find(|known| **known == flag) {
            verb = Some(*known);
            continue;
        }
        let value = match inline {
            Some(value) => value.into(),
            // Go's switches stand alone; people write a value behind them all the same.
            None if SWITCHES.contains(&flag.as_str()) => {
                arguments.next_if(is_switch_value).unwrap_or_else(|| "true".into())
            }
            None => arguments.next().unwrap_or_default(),
        };
        if flag == "backupFile" {
            file = Some(value.clone());
        }
        let name = WITH_VALUE.iter().find(|(seed, _)| *seed == flag).map_or("", |(_, name)| name);
        let mut joined = OsString::from(format!("{name}="));
        joined.push(value);
        translated.push(joined);
    }
    // There, -backupFile named the object to fetch, and its plaintext was written beside it.
    match (verb, file) {
        (Some("list"), _) => translated.push("list".into()),
        (Some("restore"), Some(key)) => {
            let mut output = key.clone();
            output.push(".restore");
            translated.extend(["decrypt".into(), key, "--output".into(), output]);
        }
        (Some("decrypt"), Some(key)) => translated.extend(["decrypt".into(), key]),
        (Some(verb), None) => translated.push(verb.into()),
        (_, _) => translated.push("run".into()),
    }
    translated
}

fn is_switch_value(argument: &OsString) -> bool {
    argument.to_str().is_some_and(|text| ["0", "1", "true", "false"].contains(&text))
}

/// `-name` or `-name=value` of the Go program, with one dash.
fn seed_flag(argument: &OsString) -> Option<(String, Option<String>)> {
    let text = argument.to_str()?.strip_prefix('-')?;
    if text.starts_with('-') {
        return None;
    }
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let known = VERBS.contains(&name) || WITH_VALUE.iter().any(|(seed, _)| *seed == name);
    known.then(|| (name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str, bucket: bool) -> String {
        let words = line.split_whitespace().map(OsString::from).collect();
        let words: Vec<String> =
            translate(words, bucket).into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn the_go_programs_lines_are_understood() {
        for (typed, expected) in [
            ("vb -list -bucketName b -trace 1", "vb --bucket=b --trace=1 list"),
            (
                "vb -bucketName=b -encKey k -backupInterval 5",
                "vb --bucket=b --enc-key=k --snapshot-interval=5 run",
            ),
            (
                "vb -restore -backupFile backup_1.db.enc -encKey k",
                "vb --database=backup_1.db.enc --enc-key=k decrypt backup_1.db.enc --output backup_1.db.enc.restore",
            ),
            ("vb -insecure -list -trace", "vb --insecure=true --trace=true list"),
            ("vb list --bucket b", "vb list --bucket b"),
            ("vb restore -o out.db --latest", "vb restore -o out.db --latest"),
            ("vb --help", "vb --help"),
        ] {
            assert_eq!(translated(typed, false), expected);
        }
        assert_eq!(translated("vb", true), "vb run");
        assert_eq!(translated("vb", false), "vb");
    }
}
