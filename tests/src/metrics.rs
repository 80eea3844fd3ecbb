//! **Metrics** as a program tells them, in the text form of Prometheus and OpenMetrics.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One page of them.
#[derive(Debug, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Asks for a page on a port of 127.0.0.1.
    pub async fn scrape(port: u16, path: &str) -> Result<Self> {
        let (status, text) = page(port, path).await?;
        ensure!(status == 200, "{path} is answered with {status}: {text}");
        Self::parse(&text)
    }

    /// Reads a page.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("no sample: {line}")));
        samples.collect::<Result<_>>().map(Self)
    }

    /// The sum of the series with this name and all of these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let meant = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|is| is == value))
        };
        self.0.iter().filter(meant).map(|sample| sample.value).sum()
    }

    /// The sums of the series with this name, by one of their labels.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.0.iter().filter(|sample| sample.name == name) {
            let key = sample.labels.get(label).cloned().unwrap_or_default();
            *sums.entry(key).or_default() += sample.value;
        }
        sums
    }
}

/// Status and body of a page on a port of 127.0.0.1. HTTP/1.0: the answer ends with the connection.
pub async fn page(port: u16, path: &str) -> Result<(u16, String)> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.context("nothing listens there")?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer ends in its head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// `name{label="value",…} 12 [time]`; no label that is read here holds a quote, a comma or a space.
fn sample(line: &str) -> Option<Sample> {
    let (series, rest) = match line.split_once("} ") {
        Some((series, rest)) => (series, rest),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some(Sample {
        name: name.to_owned(),
        labels: labels.collect::<Option<_>>()?,
        value: rest.split(' ').next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_read_and_summed() -> Result<()> {
        let page = Metrics::parse(
            "# TYPE requests counter\nrequests_total{op=\"put\",code=\"ok\"} 3\n\
             requests_total{op=\"put\",code=\"error\"} 1\nrequests_total{op=\"list\",code=\"ok\"} 2 1700\n\
             lag 0.5\nread_bucket{le=\"+Inf\"} 7\n# EOF\n",
        )?;
        assert!((page.sum("requests_total", &[]) - 6.0).abs() < 1e-9);
        assert!((page.sum("requests_total", &[("op", "put"), ("code", "ok")]) - 3.0).abs() < 1e-9);
        assert!((page.sum("lag", &[]) - 0.5).abs() < 1e-9);
        assert!(page.sum("none", &[]).abs() < 1e-9);
        assert!((page.by("requests_total", "op")["put"] - 4.0).abs() < 1e-9);
        assert!(Metrics::parse("lag much").is_err());
        Ok(())
    }
}
