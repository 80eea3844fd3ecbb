package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

type object = map[string]any
type list = []any

// names of one vcluster.
type names struct {
	base, namespace, release, host, bucket, uid string
}

func (n names) metadata(name, namespace string) object {
	return object{"name": name, "namespace": namespace}
}

func bucket(n names, in *Input) object {
	return object{
		"apiVersion": "minio.crossplane.io/v1",
		"kind":       "Bucket",
		"metadata":   object{"name": n.bucket},
		"spec": object{
			"deletionPolicy": "Orphan",
			"forProvider": object{
				"bucketName":           n.bucket,
				"bucketDeletionPolicy": "DeleteIfEmpty",
				"region":               or(in.Storage.Region, "us-east-1"),
			},
			"providerConfigRef": object{"name": "default"},
		},
	}
}

func policy(n names) (object, error) {
	arn := "arn:aws:s3:::" + n.bucket
	raw, err := json.Marshal(object{
		"Version": "2012-10-17",
		"Statement": list{
			object{
				"Action":   list{"s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"},
				"Effect":   "Allow",
				"Resource": list{arn},
			},
			object{
				"Action": list{
					"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject",
					"s3:ListMultipartUploadParts", "s3:PutObject",
				},
				"Effect":   "Allow",
				"Resource": list{arn + "/*"},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return object{
		"apiVersion": "minio.crossplane.io/v1",
		"kind":       "Policy",
		"metadata":   object{"name": n.bucket},
		"spec": object{
			"forProvider":       object{"rawPolicy": string(raw)},
			"providerConfigRef": object{"name": "default"},
		},
	}, nil
}

func user(n names) object {
	return object{
		"apiVersion": "minio.crossplane.io/v1",
		"kind":       "User",
		"metadata":   object{"name": n.bucket},
		"spec": object{
			"forProvider":                object{"policies": list{n.bucket}, "userName": n.bucket},
			"providerConfigRef":          object{"name": "default"},
			"writeConnectionSecretToRef": n.metadata(n.release+"-backup-s3", n.host),
		},
	}
}

// kept is a Secret with the content of one that is there.
func kept(n names, name, namespace string, there object) object {
	secret := object{
		"apiVersion": "v1",
		"kind":       "Secret",
		"metadata":   n.metadata(name, namespace),
	}
	for _, field := range []string{"type", "immutable", "data"} {
		if value, found := there[field]; found {
			secret[field] = value
		}
	}
	return secret
}

func config(n names, backup *Backup) object {
	text := &strings.Builder{}
	line := func(key string, value any) { fmt.Fprintf(text, "%s: %v\n", key, value) }
	retention := &backup.Retention
	line("adopt", `"never"`)
	line("autoRestore", `["empty"]`)
	line("keepDaily", orNumber(retention.Daily, 7))
	line("keepHourly", orNumber(retention.Hourly, 24))
	line("keepLast", orNumber(retention.Last, 3))
	line("keepMonthly", orNumber(retention.Monthly, 6))
	line("keepWeekly", orNumber(retention.Weekly, 4))
	line("pins", "[]")
	line("pitrWindow", fmt.Sprintf("%q", or(retention.PITRWindow, "168h")))
	line("snapshotInterval", fmt.Sprintf("%q", or(backup.SnapshotInterval, "1h")))
	line("syncInterval", fmt.Sprintf("%q", or(backup.SyncInterval, "1s")))
	return object{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   n.metadata(n.release+"-backup", n.host),
		"data":       object{"config.yaml": text.String()},
	}
}

func release(n names, in *Input, xr *Vcluster) object {
	values := object{
		"controlPlane": object{
			"statefulSet": object{
				"initContainers":    list{ensure(n, in)},
				"sidecarContainers": list{sidecar(n, in)},
				"persistence":       object{"addVolumes": volumes(n)},
			},
		},
	}
	for key, value := range xr.Spec.Values {
		if _, ours := values[key]; !ours {
			values[key] = value
		}
	}
	return object{
		"apiVersion": "helm.crossplane.io/v1beta1",
		"kind":       "Release",
		"metadata": object{
			"name":        n.host,
			"annotations": object{"crossplane.io/external-name": n.release},
		},
		"spec": object{
			"forProvider": object{
				"chart": object{
					"name":       or(in.Chart.Name, "vcluster"),
					"repository": or(in.Chart.Repository, "https://charts.loft.sh"),
					"version":    or(xr.Spec.Version, or(in.Chart.Version, "0.36.1")),
				},
				"namespace": n.host,
				"values":    values,
			},
			"providerConfigRef": object{"name": "default"},
		},
	}
}

func arguments(n names, in *Input, verb string, own ...any) list {
	args := append(list{verb, "--config=/etc/vcluster-backup/config.yaml"}, own...)
	return append(args,
		"--signing-key-file=/etc/vcluster-backup-keys/signing-key",
		"--access-key-file=/etc/vcluster-backup-s3/AWS_ACCESS_KEY_ID",
		"--secret-key-file=/etc/vcluster-backup-s3/AWS_SECRET_ACCESS_KEY",
		"--endpoint="+in.Storage.Endpoint,
		"--region="+or(in.Storage.Region, "us-east-1"),
		"--bucket="+n.bucket,
		fmt.Sprintf("--owner=%s/%s/%s", n.host, n.release, n.uid),
	)
}

func container(name string, in *Input, args list, capabilities object, mounts list) object {
	return object{
		"name":  name,
		"image": in.Agent.Image,
		"args":  args,
		"env":   list{object{"name": "TMPDIR", "value": "/scratch"}},
		"resources": object{
			"limits":   object{"memory": "256Mi"},
			"requests": object{"cpu": "10m", "memory": "48Mi"},
		},
		"securityContext": object{
			"allowPrivilegeEscalation": false,
			"capabilities":             capabilities,
			"readOnlyRootFilesystem":   true,
			"runAsGroup":               0,
			"runAsUser":                0,
			"seccompProfile":           object{"type": "RuntimeDefault"},
		},
		"volumeMounts": mounts,
	}
}

func mount(path, name string, readOnly bool) object {
	mounted := object{"mountPath": path, "name": name}
	if readOnly {
		mounted["readOnly"] = true
	}
	return mounted
}

func ensure(n names, in *Input) object {
	args := arguments(n, in, "ensure", "--identity-file=/etc/vcluster-backup-identity/age-identity")
	return container("vcluster-backup-ensure", in, args,
		object{"add": list{"CHOWN", "DAC_OVERRIDE", "FOWNER"}, "drop": list{"ALL"}},
		list{
			mount("/data", "data", false),
			mount("/etc/vcluster-backup", "vcluster-backup-config", true),
			mount("/etc/vcluster-backup-keys", "vcluster-backup-keys", true),
			mount("/etc/vcluster-backup-s3", "vcluster-backup-s3", true),
			mount("/etc/vcluster-backup-identity", "vcluster-backup-identity", true),
			mount("/scratch", "vcluster-backup-scratch", false),
		})
}

func sidecar(n names, in *Input) object {
	args := arguments(n, in, "run", "--recipients-file=/etc/vcluster-backup-keys/recipients")
	made := container("vcluster-backup", in, append(args, "--listen=:8090"),
		object{"drop": list{"ALL"}},
		list{
			mount("/data", "data", true),
			mount("/etc/vcluster-backup", "vcluster-backup-config", true),
			mount("/etc/vcluster-backup-keys", "vcluster-backup-keys", true),
			mount("/etc/vcluster-backup-s3", "vcluster-backup-s3", true),
			mount("/scratch", "vcluster-backup-scratch", false),
		})
	made["ports"] = list{object{"containerPort": 8090, "name": "backup"}}
	made["livenessProbe"] = object{
		"failureThreshold": 3,
		"httpGet":          object{"path": "/healthz", "port": 8090},
		"periodSeconds":    30,
		"timeoutSeconds":   5,
	}
	return made
}

func volumes(n names) list {
	secret := func(volume, name string, optional bool, keys ...string) object {
		items := list{}
		for _, key := range keys {
			items = append(items, object{"key": key, "path": key})
		}
		source := object{"defaultMode": 0o400, "items": items, "secretName": name}
		if optional {
			source["optional"] = true
		}
		return object{"name": volume, "secret": source}
	}
	return list{
		object{"name": "vcluster-backup-config", "configMap": object{"name": n.release + "-backup"}},
		secret("vcluster-backup-keys", n.release+"-backup", false, "recipients", "signing-key"),
		secret("vcluster-backup-s3", n.release+"-backup-s3", false, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
		secret("vcluster-backup-identity", n.release+"-backup-restore", true, "age-identity"),
		object{"name": "vcluster-backup-scratch", "emptyDir": object{}},
	}
}
