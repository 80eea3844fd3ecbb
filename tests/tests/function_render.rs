//! The function through Crossplane's own reconciler: what is composed at each stage of a vcluster's life.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use vcluster_backup_tests::crossplane::{Rendered, Rendering, compositions, read};
use vcluster_backup_tests::function::Function;
use vcluster_backup_tests::golden;
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::{self, EXAMPLES, FLAVOURS, IDENTITY, RECIPIENT, UID};

/// As what the function composes these (function/src/names.rs).
const IDENTITY_KEY: &str = "backup-identity";
const KEYS_KEY: &str = "backup-keys";
const CONFIG_KEY: &str = "backup-config";
const CLUSTER_KEY: &str = "vcluster";

fn rendering(flavour: &str) -> Result<Rendering> {
    Rendering::new(flavour, vcluster::example(flavour, "minimal")?)
}

/// A first rendering, and the same once the identity of these tests is found.
fn stages(tools: &Tools, function: &Function, flavour: &str) -> Result<(Rendered, Rendering)> {
    let mut rendering = rendering(flavour)?;
    let first = rendering.run(tools, function)?.succeeded()?;
    let composed = first.composed(IDENTITY_KEY)?.context("no identity was composed")?;
    rendering.required = vec![vcluster::identity_secret(&composed)];
    Ok((first, rendering))
}

#[tokio::test]
async fn a_first_identity_is_composed_alone_of_what_depends_on_it() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for flavour in FLAVOURS {
        let (first, _) = stages(&tools, &function, flavour)?;
        let identity = first.composed(IDENTITY_KEY)?.context("no identity")?;
        assert_eq!(
            (&identity["kind"], &identity["immutable"]),
            (&json!("Secret"), &json!(true)),
            "{flavour}"
        );
        assert!(
            vcluster::secret_text(&identity, "age-identity")?.starts_with("AGE-SECRET-KEY-1"),
            "{flavour}"
        );
        // Half of a response may be applied: recipients must never come to be without their identity.
        for key in [KEYS_KEY, CONFIG_KEY] {
            assert!(first.composed(key)?.is_none(), "{flavour}: {key} came with the identity that it needs");
        }
        assert!(first.composed(CLUSTER_KEY)?.is_some(), "{flavour}: no release");
        assert_eq!(ready(&first)?, "False", "{flavour}");

        // Two renderings draw two identities.
        let again = rendering(flavour)?.run(&tools, &function)?.succeeded()?;
        let other = again.composed(IDENTITY_KEY)?.context("no identity")?;
        assert_ne!(other["data"]["age-identity"], identity["data"]["age-identity"], "{flavour}");
    }
    Ok(())
}

#[tokio::test]
async fn a_drawn_identity_is_kept_once_it_is_found() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for flavour in FLAVOURS {
        let (first, mut rendering) = stages(&tools, &function, flavour)?;
        let drawn = first.composed(IDENTITY_KEY)?.context("no identity")?;
        rendering.required = vec![drawn.clone()];
        let second = rendering.run(&tools, &function)?.succeeded()?;
        let kept = second.composed(IDENTITY_KEY)?.context("the identity is gone")?;
        assert_eq!(kept["data"], drawn["data"], "{flavour}");
        let keys = second.composed(KEYS_KEY)?.context("no keys for the sidecar")?;
        let recipients = vcluster::secret_text(&keys, "recipients")?;
        let own = vcluster::secret_text(&drawn, "age-recipient")?;
        assert_eq!(recipients.lines().next(), Some(own.trim()), "{flavour}");
        // Nowhere else, neither as the Secret has it nor as it is; but where the pod may read it, it lies where the
        // init container looks for it too.
        let is_handed_over = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            flavour == "namespaced" && name.ends_with("-backup-restore")
        };
        let (encoded, plain) =
            (kept["data"]["age-identity"].clone(), vcluster::secret_text(&kept, "age-identity")?);
        let encoded = encoded.as_str().context("no identity")?;
        for object in second.objects()?.iter().filter(|object| **object != kept && !is_handed_over(object)) {
            let text = object.to_string();
            assert!(!text.contains(encoded) && !text.contains(plain.trim()), "{flavour}: {}", object["kind"]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_composed_is_as_agreed_and_the_same_every_time() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for (flavour, example) in FLAVOURS.iter().flat_map(|flavour| EXAMPLES.map(|example| (flavour, example))) {
        let title = format!("{flavour}-{example}");
        let mut rendering = Rendering::new(flavour, vcluster::example(flavour, example)?)?;
        if example == "rancher" {
            let platform = read(&compositions().join("inputs/rancher.yaml"))?;
            let input = rendering.composition.pointer_mut("/spec/pipeline/0/input").context("no Input")?;
            input["rancher"] = platform["rancher"].clone();
        }
        let first = rendering.run(&tools, &function)?.succeeded().with_context(|| title.clone())?;
        // Without backup there is none. A drawn one never comes into a golden file.
        if let Some(drawn) = first.composed(IDENTITY_KEY)? {
            rendering.required = vec![vcluster::identity_secret(&drawn)];
        }
        let once = rendering.run(&tools, &function)?.succeeded().with_context(|| title.clone())?;
        let twice = rendering.run(&tools, &function)?.succeeded()?;
        assert_eq!(golden::difference(&once.text, &twice.text), None, "{title}: two renderings differ");
        assert!(!once.messages.contains(IDENTITY), "{title}: the identity is in the messages");
        golden::check(&format!("{title}.yaml"), &once.text)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_identity_is_never_replaced() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for flavour in FLAVOURS {
        let (_, mut rendering) = stages(&tools, &function, flavour)?;
        let found = rendering.run(&tools, &function)?.succeeded()?;
        let status = found.objects()?.into_iter().find_map(|object| Some(object.get("status")?.clone()));
        let status = status.context("the XR has no status")?;
        assert_eq!(status["backup"]["recipient"], json!(RECIPIENT), "{flavour}");
        rendering.composite["status"] = status;
        rendering.required.clear();
        let lost = rendering.run(&tools, &function)?;
        assert!(!lost.success, "{flavour}: a new identity took the place of a lost one");
        assert!(lost.composed(IDENTITY_KEY).ok().flatten().is_none(), "{flavour}");
        assert!(lost.messages.contains("identity"), "{flavour}: {}", lost.messages);
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for flavour in FLAVOURS {
        let mut wrong = rendering(flavour)?;
        wrong.composite["spec"]["backup"]["snapshotIntervall"] = json!("1h");
        let refused = wrong.run(&tools, &function)?;
        assert!(!refused.success, "{flavour}");
        assert!(refused.messages.contains("snapshotIntervall"), "{flavour}: {}", refused.messages);

        let mut wrong = rendering(flavour)?;
        let input = wrong.composition.pointer_mut("/spec/pipeline/0/input/storage").context("no Input")?;
        input["endpoints"] = json!("https://minio:9000");
        let refused = wrong.run(&tools, &function)?;
        assert!(!refused.success, "{flavour}");
        assert!(refused.messages.contains("storage") && refused.messages.contains("endpoints"), "{flavour}");
    }
    Ok(())
}

#[tokio::test]
async fn names_and_owner_follow_from_the_claim() -> Result<()> {
    let Some(tools) = Tools::with(["crossplane", "crossplane-core"]) else { return Ok(()) };
    let function = Function::start().await?;
    for flavour in FLAVOURS {
        let rendering = rendering(flavour)?;
        let release =
            rendering.run(&tools, &function)?.succeeded()?.composed(CLUSTER_KEY)?.context("no release")?;
        let claim = &rendering.composite["spec"]["claimRef"];
        let base = if flavour == "claim" { claim } else { &rendering.composite["metadata"] };
        let (namespace, name) =
            (base["namespace"].as_str().unwrap_or("default"), base["name"].as_str().unwrap_or(""));
        let expected = match flavour {
            "claim" => format!("vcluster-{namespace}-{name}"),
            _ => namespace.to_owned(),
        };
        assert_eq!(release["spec"]["forProvider"]["namespace"], json!(expected), "{flavour}");
        assert_eq!(
            release["metadata"]["annotations"]["crossplane.io/external-name"],
            json!(name),
            "{flavour}"
        );
        let sidecar =
            &release["spec"]["forProvider"]["values"]["controlPlane"]["statefulSet"]["sidecarContainers"][0];
        let owner = format!("--owner={expected}/{name}/{UID}");
        assert!(sidecar["args"].as_array().is_some_and(|args| args.contains(&json!(owner))), "{sidecar}");
    }
    Ok(())
}

fn ready(rendered: &Rendered) -> Result<String> {
    let objects = rendered.objects()?;
    let xr = objects.iter().find(|object| object["status"]["conditions"].is_array()).context("no XR")?;
    let conditions = xr["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .context("the XR is not told ready or not")?;
    Ok(ready["status"].as_str().context("a condition without a status")?.to_owned())
}
