package main

import "github.com/crossplane/function-sdk-go/resource"

// usages keep what the release lives on while it is there.
func usages(n names, identityName, keyNamespace string) map[resource.Name]object {
	const minio = "minio.crossplane.io/v1"
	return map[resource.Name]object{
		"protection-backup-bucket":   usage(n, n.bucket+"-bucket", "", minio, "Bucket", n.bucket),
		"protection-backup-policy":   usage(n, n.bucket+"-policy", "", minio, "Policy", n.bucket),
		"protection-backup-user":     usage(n, n.bucket+"-user", "", minio, "User", n.bucket),
		"protection-backup-identity": usage(n, identityName, keyNamespace, "v1", "Secret", identityName),
		"protection-backup-keys":     usage(n, n.release+"-backup", n.host, "v1", "Secret", n.release+"-backup"),
	}
}

func usage(n names, name, namespace, apiVersion, kind, of string) object {
	made := object{
		"apiVersion": "protection.crossplane.io/v1beta1",
		"kind":       "ClusterUsage",
		"metadata":   object{"name": name},
		"spec": object{
			"by": object{
				"apiVersion":  "helm.crossplane.io/v1beta1",
				"kind":        "Release",
				"resourceRef": object{"name": n.host},
			},
			"of": object{
				"apiVersion":  apiVersion,
				"kind":        kind,
				"resourceRef": object{"name": of},
			},
			"reason":         "The backup needs it; spec.backup.enabled: false with deletionPolicy: Delete drops both.",
			"replayDeletion": true,
		},
	}
	if namespace != "" {
		made["kind"] = "Usage"
		made["metadata"] = n.metadata(name, namespace)
	}
	return made
}
