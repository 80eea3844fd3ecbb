//! The policy that the function emits, in a real MinIO: it lets the agent do its work in its own bucket, and
//! nothing else anywhere.

use std::path::Path;

use anyhow::{Context as _, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use serde_json::{Value, json};
use vcluster_backup_tests::agent::{self, Finished};
use vcluster_backup_tests::crossplane::Rendering;
use vcluster_backup_tests::function::Function;
use vcluster_backup_tests::kine::Kine;
use vcluster_backup_tests::minio::{Credentials, Minio};
use vcluster_backup_tests::toolbox::Tools;
use vcluster_backup_tests::vcluster::{self, FLAVOURS};

/// Smallest part of a multipart upload but the last (S3).
const PART: usize = 5 * 1024 * 1024;

/// The composed bucket, policy and user. The user is there only once its policy is ready.
async fn storage(tools: &Tools, flavour: &str) -> Result<[Value; 3]> {
    let function = Function::start().await?;
    let mut rendering = Rendering::new(flavour, vcluster::example(flavour, "minimal")?)?;
    let first = rendering.run(tools, &function)?.succeeded()?;
    assert!(first.composed("backup-user")?.is_none(), "{flavour}: a user before its policy");
    let [bucket, policy] = ["backup-bucket", "backup-policy"].map(|key| first.composed(key));
    let (bucket, policy) = (bucket?.context("no bucket")?, policy?.context("no policy")?);
    rendering.required =
        vec![vcluster::identity_secret(&first.composed("backup-identity")?.context("no identity")?)];
    rendering.observed = [&bucket, &policy]
        .map(|object| {
            let mut ready = object.clone();
            ready["status"] = json!({"conditions": [
                {"type": "Ready", "status": "True", "reason": "Available", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]});
            ready
        })
        .to_vec();
    let second = rendering.run(tools, &function)?.succeeded()?;
    let user = second.composed("backup-user")?.context("no user although its policy is ready")?;
    Ok([bucket, policy, user])
}

/// Does what provider-minio does with the three objects, and returns the bucket's name and the user.
async fn provision(minio: &Minio, [bucket, policy, user]: &[Value; 3]) -> Result<(String, Credentials)> {
    let text = |object: &Value, pointer: &str| -> Result<String> {
        let value = object.pointer(pointer).and_then(Value::as_str);
        Ok(value.with_context(|| format!("no {pointer} in {object}"))?.to_owned())
    };
    let name = match text(bucket, "/spec/forProvider/bucketName") {
        Ok(name) => name,
        Err(_) => text(bucket, "/metadata/name")?,
    };
    minio.make_bucket(&name).await?;
    // On the server the policy is called as its object.
    let policy_name = text(policy, "/metadata/name")?;
    assert_eq!(user["spec"]["forProvider"]["policies"], json!([policy_name]));
    let user = Credentials::new(&text(user, "/spec/forProvider/userName")?, "secret-of-this-user");
    minio.add_user(&user)?;
    minio.grant(&user, &policy_name, &text(policy, "/spec/forProvider/rawPolicy")?)?;
    Ok((name, user))
}

/// Whether the server refused it for lack of rights, and not for another reason.
fn refused<T, E: std::fmt::Debug>(result: Result<T, SdkError<E>>) -> bool {
    result.err().and_then(|error| Some(error.raw_response()?.status().as_u16())) == Some(403)
}

async fn multipart(client: &Client, bucket: &str, key: &str) -> Result<()> {
    let upload = client.create_multipart_upload().bucket(bucket).key(key).send().await?;
    let id = upload.upload_id().context("no upload id")?;
    let mut parts = CompletedMultipartUpload::builder();
    for (number, size) in [(1, PART), (2, 1)] {
        let part = client.upload_part().bucket(bucket).key(key).upload_id(id).part_number(number);
        let part = part.body(vec![7; size].into()).send().await?;
        let done =
            CompletedPart::builder().part_number(number).set_e_tag(part.e_tag().map(str::to_owned)).build();
        parts = parts.parts(done);
    }
    client.list_parts().bucket(bucket).key(key).upload_id(id).send().await?;
    let complete =
        client.complete_multipart_upload().bucket(bucket).key(key).upload_id(id).if_none_match("*");
    complete.multipart_upload(parts.build()).send().await?;
    // One that is given up, as after a failure.
    let upload = client.create_multipart_upload().bucket(bucket).key("given-up").send().await?;
    let id = upload.upload_id().context("no upload id")?;
    assert_eq!(
        client.list_multipart_uploads().bucket(bucket).prefix("given-up").send().await?.uploads().len(),
        1
    );
    client.abort_multipart_upload().bucket(bucket).key("given-up").upload_id(id).send().await?;
    Ok(())
}

/// `snapshot` of the database into a bucket, with the user's credentials.
async fn snapshot(minio: &Minio, user: &Credentials, bucket: &str, database: &Path) -> Result<Finished> {
    let mut command = agent::command(["snapshot", "--recipient", vcluster::RECIPIENT])?;
    command
        .arg(format!("--endpoint={}", minio.endpoint()))
        .arg(format!("--bucket={bucket}"))
        .arg(format!("--database={}", database.display()))
        .env("ACCESS_KEY", &user.access_key)
        .env("SECRET_KEY", &user.secret_key);
    agent::finish(command).await
}

#[tokio::test]
async fn the_agent_runs_under_the_policy() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "crossplane", "crossplane-core", "kine"]) else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("state.db");
    let kine = Kine::start(&tools, &database, None).await?;
    kine.client().await?.create("/registry/configmaps/default/a", b"1").await?;
    for flavour in FLAVOURS {
        let minio = Minio::start(&tools).await?;
        let (own, user) = provision(&minio, &storage(&tools, flavour).await?).await?;
        minio.make_bucket("another-bucket").await?;
        snapshot(&minio, &user, &own, &database).await?.ended(0)?;
        let stored = minio.list(&own, "").await?;
        assert!(stored.iter().any(|(key, _)| key.ends_with(".db.zst.age")), "{flavour}: {stored:?}");
        // Its own credentials, another's bucket.
        let refused = snapshot(&minio, &user, "another-bucket", &database).await?.ended(1)?;
        assert!(refused.stderr.contains("another-bucket"), "{flavour}: {}", refused.stderr);
        assert_eq!(minio.list("another-bucket", "").await?, []);
    }
    Ok(())
}

#[tokio::test]
async fn the_policy_is_enough_for_the_agent_and_for_nothing_else() -> Result<()> {
    let Some(tools) = Tools::with(["minio", "mc", "crossplane", "crossplane-core"]) else { return Ok(()) };
    for flavour in FLAVOURS {
        let objects = storage(&tools, flavour).await?;
        let minio = Minio::start(&tools).await?;
        let (own, user) = provision(&minio, &objects).await?;
        minio.make_bucket("another-bucket").await?;
        minio.write("another-bucket", "a/1", b"secret".to_vec()).await?;
        let client = minio.client(&user);

        // All that the agent does.
        let put = client.put_object().bucket(&own).key("a/1").if_none_match("*").body(b"one".to_vec().into());
        put.send().await.context("put")?;
        client.head_object().bucket(&own).key("a/1").send().await.context("head")?;
        client.get_object().bucket(&own).key("a/1").send().await.context("get")?;
        client.list_objects_v2().bucket(&own).prefix("a/").send().await.context("list")?;
        client.get_bucket_location().bucket(&own).send().await.context("location")?;
        multipart(&client, &own, "a/2").await.context("multipart")?;
        client.delete_object().bucket(&own).key("a/1").send().await.context("delete")?;

        // Nothing of others, and nothing that changes the bucket itself.
        let other = "another-bucket";
        assert!(
            refused(client.get_object().bucket(other).key("a/1").send().await),
            "{flavour}: get elsewhere"
        );
        assert!(
            refused(client.head_object().bucket(other).key("a/1").send().await),
            "{flavour}: head elsewhere"
        );
        assert!(refused(client.list_objects_v2().bucket(other).send().await), "{flavour}: list elsewhere");
        let put = client.put_object().bucket(other).key("a/2").body(vec![1].into());
        assert!(refused(put.send().await), "{flavour}: put elsewhere");
        assert!(
            refused(client.delete_object().bucket(other).key("a/1").send().await),
            "{flavour}: delete elsewhere"
        );
        let multipart = client.create_multipart_upload().bucket(other).key("a/2");
        assert!(refused(multipart.send().await), "{flavour}: multipart elsewhere");
        assert!(
            refused(client.create_bucket().bucket("a-third-bucket").send().await),
            "{flavour}: a new bucket"
        );
        assert!(refused(client.delete_bucket().bucket(&own).send().await), "{flavour}: delete its bucket");
        let open =
            client.put_bucket_policy().bucket(&own).policy(r#"{"Version": "2012-10-17", "Statement": []}"#);
        assert!(refused(open.send().await), "{flavour}: a policy for its bucket");
        // MinIO answers with what the user may see.
        if let Ok(answer) = client.list_buckets().send().await {
            let seen: Vec<_> = answer.buckets().iter().filter_map(|bucket| bucket.name()).collect();
            assert_eq!(seen, [own.as_str()], "{flavour}: it sees other buckets");
        }
        assert_eq!(minio.read(other, "a/1").await?, b"secret");
    }
    Ok(())
}
