package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Input is the part of the platform's Input that this composition needs.
type Input struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Chart struct {
		Repository string `json:"repository"`
		Name       string `json:"name"`
		Version    string `json:"version"`
	} `json:"chart"`
	Agent struct {
		Image string `json:"image"`
	} `json:"agent"`
	Storage struct {
		Endpoint string `json:"endpoint"`
		Region   string `json:"region"`
	} `json:"storage"`
	Encryption struct {
		KeyNamespace  string `json:"keyNamespace"`
		RequireEscrow bool   `json:"requireEscrow"`
	} `json:"encryption"`
	TTL string `json:"ttl"`
}

// DeepCopyObject makes an Input a runtime.Object, as the SDK reads it.
func (in *Input) DeepCopyObject() runtime.Object {
	out := *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// Vcluster is the XR, typed.
type Vcluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		Version string         `json:"version"`
		Values  map[string]any `json:"values"`
		Backup  Backup         `json:"backup"`
	} `json:"spec"`
}

// Backup is what a claim says of its backup.
type Backup struct {
	Enabled          *bool    `json:"enabled"`
	SyncInterval     string   `json:"syncInterval"`
	SnapshotInterval string   `json:"snapshotInterval"`
	Recipients       []string `json:"recipients"`
	DeletionPolicy   string   `json:"deletionPolicy"`
	Retention        struct {
		PITRWindow string `json:"pitrWindow"`
		Last       *int   `json:"last"`
		Hourly     *int   `json:"hourly"`
		Daily      *int   `json:"daily"`
		Weekly     *int   `json:"weekly"`
		Monthly    *int   `json:"monthly"`
	} `json:"retention"`
	StaleAfter string `json:"staleAfter"`
}

func or[T comparable](given, otherwise T) T {
	var zero T
	if given == zero {
		return otherwise
	}
	return given
}

func orNumber(given *int, otherwise int) int {
	if given == nil {
		return otherwise
	}
	return *given
}
