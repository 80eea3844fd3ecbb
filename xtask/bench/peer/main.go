// The peer of the composition function in the bench: a claim's steady state, composed with Crossplane's official Go SDK
// as its documentation has it: typed XR and Input, observed and required resources, the same seven objects, conditions,
// requirements and status.
//
// It does less than the function that it is measured beside: no strict reading, no policy on values, no names cut to
// length, no keys derived (it keeps those of the observed Secret), no events. Its figures are the floor of what the
// same composition costs in Go.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/crossplane/function-sdk-go"
	"github.com/crossplane/function-sdk-go/errors"
	v1 "github.com/crossplane/function-sdk-go/proto/v1"
	"github.com/crossplane/function-sdk-go/request"
	"github.com/crossplane/function-sdk-go/resource"
	"github.com/crossplane/function-sdk-go/resource/composed"
	"github.com/crossplane/function-sdk-go/response"
	"k8s.io/apimachinery/pkg/runtime"
)

func main() {
	address := flag.String("address", "127.0.0.1:9443", "where to listen")
	metrics := flag.String("metrics-address", "127.0.0.1:8080", "where to serve metrics")
	flag.Parse()
	err := function.Serve(&peer{},
		function.Listen("tcp", *address),
		function.Insecure(true),
		function.WithMetricsServer(*metrics),
	)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type peer struct {
	v1.UnimplementedFunctionRunnerServiceServer
}

// RunFunction answers one request.
func (p *peer) RunFunction(_ context.Context, req *v1.RunFunctionRequest) (*v1.RunFunctionResponse, error) {
	rsp := response.To(req, time.Minute)
	if err := compose(req, rsp); err != nil {
		response.Fatal(rsp, err)
	}
	return rsp, nil
}

func compose(req *v1.RunFunctionRequest, rsp *v1.RunFunctionResponse) error {
	in := &Input{}
	if err := request.GetInput(req, in); err != nil {
		return errors.Wrap(err, "cannot get Input")
	}
	oxr, err := request.GetObservedCompositeResource(req)
	if err != nil {
		return errors.Wrap(err, "cannot get observed XR")
	}
	xr := &Vcluster{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(oxr.Resource.Object, xr); err != nil {
		return errors.Wrap(err, "cannot read the XR")
	}
	observed, err := request.GetObservedComposedResources(req)
	if err != nil {
		return errors.Wrap(err, "cannot get observed resources")
	}
	required, err := request.GetRequiredResources(req)
	if err != nil {
		return errors.Wrap(err, "cannot get required resources")
	}
	desired, err := request.GetDesiredComposedResources(req)
	if err != nil {
		return errors.Wrap(err, "cannot get desired resources")
	}

	n := namesOf(xr)
	keyNamespace := or(in.Encryption.KeyNamespace, "crossplane-system")
	identityName := n.namespace + "." + n.base + "-backup-identity"
	require(rsp, "backup-identity", "Secret", identityName, keyNamespace)
	require(rsp, "backup-status", "ConfigMap", n.release+"-backup-status", n.host)

	rawPolicy, err := policy(n)
	if err != nil {
		return errors.Wrap(err, "cannot write the policy")
	}
	objects := map[resource.Name]object{
		"backup-bucket": bucket(n, in),
		"backup-policy": rawPolicy,
		"backup-user":   user(n),
		"backup-config": config(n, &xr.Spec.Backup),
		"vcluster":      release(n, in, xr),
	}
	if found := required["backup-identity"]; len(found) > 0 {
		objects["backup-identity"] = kept(n, identityName, keyNamespace, found[0].Resource.Object)
	}
	if there, found := observed["backup-keys"]; found {
		objects["backup-keys"] = kept(n, n.release+"-backup", n.host, there.Resource.Object)
	}
	for name, made := range usages(n, identityName, keyNamespace) {
		objects[name] = made
	}
	allReady := true
	for name, made := range objects {
		resource := resource.NewDesiredComposed()
		resource.Resource = &composed.Unstructured{}
		resource.Resource.Object = made
		resource.Ready = ready(name, observed)
		allReady = allReady && resource.Ready == "True"
		desired[name] = resource
	}
	if err := response.SetDesiredComposedResources(rsp, desired); err != nil {
		return errors.Wrap(err, "cannot set desired resources")
	}
	health, err := tellStatus(req, rsp, n, xr, required)
	if err != nil {
		return err
	}
	if allReady {
		rsp.Desired.Composite.Ready = v1.Ready_READY_TRUE
	}
	tellConditions(rsp, n, identityName, keyNamespace, observed, health)
	return nil
}

func namesOf(xr *Vcluster) names {
	n := names{base: xr.Name, namespace: xr.Namespace, uid: string(xr.UID)}
	if claim := xr.Labels["crossplane.io/claim-name"]; claim != "" {
		n.base, n.namespace = claim, xr.Labels["crossplane.io/claim-namespace"]
	}
	n.release = n.base
	n.host = "vcluster-" + n.namespace + "-" + n.base
	n.bucket = "vcb-" + n.namespace + "-" + n.base
	return n
}

func require(rsp *v1.RunFunctionResponse, key, kind, name, namespace string) {
	if rsp.Requirements == nil {
		rsp.Requirements = &v1.Requirements{Resources: map[string]*v1.ResourceSelector{}}
	}
	rsp.Requirements.Resources[key] = &v1.ResourceSelector{
		ApiVersion: "v1",
		Kind:       kind,
		Namespace:  &namespace,
		Match:      &v1.ResourceSelector_MatchName{MatchName: name},
	}
}

func ready(name resource.Name, observed map[resource.Name]resource.ObservedComposed) resource.Ready {
	there, found := observed[name]
	if !found {
		return resource.ReadyFalse
	}
	switch name {
	case "backup-identity", "backup-keys", "backup-config":
		return resource.ReadyTrue
	}
	if there.Resource.GetCondition("Ready").Status == "True" {
		return resource.ReadyTrue
	}
	return resource.ReadyFalse
}

// tellStatus sets the XR's status from the agent's report; whether the agent is well.
func tellStatus(
	req *v1.RunFunctionRequest, rsp *v1.RunFunctionResponse, n names, xr *Vcluster, required map[string][]resource.Required,
) (bool, error) {
	dxr, err := request.GetDesiredCompositeResource(req)
	if err != nil {
		return false, errors.Wrap(err, "cannot get desired XR")
	}
	dxr.Resource.SetAPIVersion(xr.APIVersion)
	dxr.Resource.SetKind(xr.Kind)
	backup := object{"bucket": n.bucket}
	healthy := false
	if found := required["backup-status"]; len(found) > 0 {
		report := struct {
			Data map[string]string `json:"data"`
		}{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found[0].Resource.Object, &report); err != nil {
			return false, errors.Wrap(err, "cannot read the report")
		}
		for _, field := range []string{"phase", "lastSuccess", "restorableFrom"} {
			backup[field] = report.Data[field]
		}
		for _, field := range []string{"revision", "sizeBytes"} {
			if number, err := strconv.ParseInt(report.Data[field], 10, 64); err == nil {
				backup[field] = number
			}
		}
		last, err := time.Parse(time.RFC3339, report.Data["lastSuccess"])
		healthy = err == nil && time.Since(last) < 5*time.Minute
	}
	if found := required["backup-identity"]; len(found) > 0 {
		data, _, _ := unstructuredMap(found[0].Resource.Object, "data")
		if identity, err := base64.StdEncoding.DecodeString(fmt.Sprint(data["age-identity"])); err == nil {
			sum := sha256.Sum256(identity)
			backup["fingerprint"] = "sha256:" + hex.EncodeToString(sum[:])
		}
	}
	status, _, _ := unstructuredMap(dxr.Resource.Object, "status")
	if status == nil {
		status = object{}
	}
	status["backup"] = backup
	status["cluster"] = object{
		"endpoint":         "https://" + n.release + "." + n.host + ".svc",
		"kubeconfigSecret": "vc-" + n.release,
		"version":          or(xr.Spec.Version, "0.36.1"),
	}
	dxr.Resource.Object["status"] = status
	return healthy, errors.Wrap(response.SetDesiredCompositeResource(rsp, dxr), "cannot set desired XR")
}

func unstructuredMap(of object, field string) (object, bool, error) {
	value, found := of[field]
	if !found {
		return nil, false, nil
	}
	fields, ok := value.(object)
	if !ok {
		return nil, false, errors.Errorf("%s is no object", field)
	}
	return fields, true, nil
}

func tellConditions(
	rsp *v1.RunFunctionResponse, n names, identityName, keyNamespace string,
	observed map[resource.Name]resource.ObservedComposed, healthy bool,
) {
	response.ConditionTrue(rsp, "CredentialsReady", "Issued").
		WithMessage("The keys of the backup are in place.").TargetCompositeAndClaim()
	response.ConditionTrue(rsp, "KeySealed", "KeptApart").
		WithMessage(fmt.Sprintf("The identity is kept in Secret %s/%s.", keyNamespace, identityName)).
		TargetCompositeAndClaim()
	response.ConditionFalse(rsp, "KeyEscrowed", "NotEscrowed").
		WithMessage("The only key that reads this backup dies with this XR: add a recipient of your own " +
			"(`vcluster-backup keygen`) to spec.backup.recipients.").
		TargetCompositeAndClaim()
	response.ConditionTrue(rsp, "StorageReady", "Provisioned").
		WithMessage("Bucket, policy and user are there.").TargetCompositeAndClaim()
	if ready("vcluster", observed) == resource.ReadyTrue {
		response.ConditionTrue(rsp, "ClusterReady", "Installed").
			WithMessage("The kubeconfig is in Secret vc-" + n.release + ".").TargetCompositeAndClaim()
	}
	if healthy {
		response.ConditionTrue(rsp, "BackupHealthy", "Replicating").
			WithMessage("Captures arrive in the bucket.").TargetCompositeAndClaim()
	} else {
		response.ConditionFalse(rsp, "BackupHealthy", "Stale").
			WithMessage("The agent has been silent for too long.").TargetCompositeAndClaim()
	}
}
