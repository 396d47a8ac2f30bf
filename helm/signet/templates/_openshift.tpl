{{/* signet.nodeAccess: OpenShift's leave for a program that needs the node; all others run under restricted-v2. Context, component, name, account, namespace. */}}
{{- define "signet.nodeAccess" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.global.openshift }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "signet.meta" (list $root (index . 1) (printf "%s-scc" (index . 2)) (index . 4)) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:openshift:scc:privileged"}
subjects:
  - {kind: ServiceAccount, name: {{ index . 3 }}, namespace: {{ index . 4 }}}
{{- end }}
{{- end -}}
