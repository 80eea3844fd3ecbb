//! The **connection** details: the kubeconfig that vcluster writes, in the connection Secret of a claim that asks for
//! one. A namespaced XR has it beside itself already.

use crate::names::{Place, key, required};
use crate::object::{entry, text};
use crate::response::Response;
use crate::subject::Subject;
use crate::xr::Flavour;

/// The entry of vcluster's Secret, and that of the claim's.
const CONFIG: &str = "config";
const KUBECONFIG: &str = "kubeconfig";

/// Asks for the kubeconfig and passes it on: when there can be one, and if it has somewhere to go.
pub fn publish(subject: &Subject, response: &mut Response) {
    let is_wanted =
        text(subject.request.composite(), &["spec", "writeConnectionSecretToRef", "name"]).is_some();
    let is_installed = subject.request.observed(key::CLUSTER).is_some();
    if subject.xr.flavour != Flavour::ClusterScoped || !is_wanted || !is_installed {
        return;
    }
    let place = Place { name: subject.names.kubeconfig(), namespace: subject.names.namespace.clone() };
    response.require(required::KUBECONFIG, "v1", "Secret", &place);
    let secret = subject.request.required(required::KUBECONFIG).found();
    if let Some(config) = secret.and_then(|secret| entry(secret, CONFIG)) {
        response.set_connection(KUBECONFIG, &config);
    }
}
