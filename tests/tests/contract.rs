//! The **contract** between the programs: what the function renders, the agent understands.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;
use vcluster_backup::args::{Cli, Command};
use vcluster_backup::settings::Settings;
use vcluster_backup_tests::crossplane::{Rendered, Rendering};
use vcluster_backup_tests::function::Function;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::{self, FLAVOURS, UID};

/// What the function composes once the identity is found.
fn rendered(tools: &Tools, function: &Function, flavour: &str) -> Result<Rendered> {
    let mut rendering = Rendering::new(flavour, vcluster::example(flavour, "minimal")?)?;
    let first = rendering.run(tools, function)?.succeeded()?;
    rendering.required =
        vec![vcluster::identity_secret(&first.composed("backup-identity")?.context("no identity")?)];
    rendering.run(tools, function)?.succeeded()
}

fn container(rendered: &Rendered, list: &str, name: &str) -> Result<Value> {
    let release = rendered.composed("vcluster")?.context("no release")?;
    let containers = &release["spec"]["forProvider"]["values"]["controlPlane"]["statefulSet"][list];
    let found = containers.as_array().and_then(|all| all.iter().find(|container| container["name"] == name));
    found.cloned().with_context(|| format!("no {name} in {list}: {containers}"))
}

/// The container's arguments, with the configuration file in place of its mount.
fn parse(container: &Value, config: &str) -> Result<Cli> {
    let args = container["args"].as_array().context("no args")?;
    let mut typed = vec!["vcluster-backup".to_owned()];
    for arg in args {
        let arg = arg.as_str().context("an argument that is no text")?;
        typed.push(if arg.starts_with("--config=") { format!("--config={config}") } else { arg.to_owned() });
    }
    Cli::try_parse_from(&typed).map_err(|error| anyhow::anyhow!("{typed:?}: {error}"))
}

/// Every file that the arguments name lies in something that is mounted.
fn check_mounts(container: &Value) -> Result<()> {
    let mounts: Vec<&str> = container["volumeMounts"]
        .as_array()
        .context("no mounts")?
        .iter()
        .filter_map(|mount| mount["mountPath"].as_str())
        .collect();
    for arg in container["args"].as_array().context("no args")?.iter().filter_map(Value::as_str) {
        if let Some((flag, path)) = arg.split_once('=')
            && path.starts_with('/')
        {
            ensure!(
                mounts.iter().any(|mount| path.starts_with(&format!("{mount}/"))),
                "{flag} is {path}, where nothing is mounted"
            );
        }
    }
    Ok(())
}

/// Variables that the agent reads as settings, and no other but the mark of a restore.
fn check_environment(container: &Value) -> Result<()> {
    let command = Cli::command();
    let known: BTreeSet<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    for variable in container["env"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = variable["name"].as_str().context("a variable without a name")?;
        ensure!(name == "VCB_RESTORE_ID" || known.contains(name), "the agent does not know {name}");
        ensure!(variable.get("valueFrom").is_none(), "{name} may bring a secret into the environment");
    }
    Ok(())
}

#[tokio::test]
async fn the_agent_understands_what_the_function_renders() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for flavour in FLAVOURS {
        let rendered = rendered(&tools, &function, flavour)?;
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.yaml");
        let config_map = rendered.composed("backup-config")?.context("no configuration")?;
        let text = config_map["data"]["config.yaml"].as_str().context("no config.yaml")?;
        std::fs::write(&config, text)?;

        let run = container(&rendered, "sidecarContainers", "vcluster-backup")?;
        let ensure = container(&rendered, "initContainers", "vcluster-backup-ensure")?;
        for (container, is_run) in [(&run, true), (&ensure, false)] {
            check_mounts(container)?;
            check_environment(container)?;
            let cli = parse(container, &config.to_string_lossy())?;
            assert_eq!(matches!(cli.command, Some(Command::Run(_))), is_run, "{flavour}: {container}");
            assert_eq!(matches!(cli.command, Some(Command::Ensure(_))), !is_run, "{flavour}: {container}");
            let settings = Settings::resolve(cli.common).with_context(|| format!("{flavour}:\n{text}"))?;
            let store = settings.store()?;
            assert!(store.endpoint.is_some() && !store.bucket.is_empty(), "{flavour}");
            assert_eq!(settings.listen().is_some(), is_run, "{flavour}");
            assert_eq!(settings.identity_file().is_some(), !is_run, "{flavour}");
            let owner = settings.owner().context("no owner")?.to_string();
            assert!(owner.ends_with(UID), "{flavour}: {owner}");
        }
    }
    Ok(())
}

#[test]
fn a_wrong_argument_or_setting_would_be_noticed() -> Result<()> {
    let container = serde_json::json!({
        "args": ["run", "--no-such-flag=1", "--recipients-file=/elsewhere/recipients"],
        "env": [{"name": "NO_SUCH_VARIABLE", "value": "1"}],
        "volumeMounts": [{"mountPath": "/etc/vcluster-backup"}],
    });
    assert!(parse(&container, "/dev/null").is_err());
    assert!(check_mounts(&container).is_err_and(|error| error.to_string().contains("--recipients-file")));
    assert!(check_environment(&container).is_err());
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "syncIntervall: 1s\n")?;
    let cli = Cli::try_parse_from([
        "vcluster-backup".into(),
        "run".into(),
        format!("--config={}", config.display()),
    ])?;
    assert!(Settings::resolve(cli.common).is_err());
    Ok(())
}
