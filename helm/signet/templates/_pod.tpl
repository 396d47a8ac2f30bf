{{/* signet.labels (root, component): labels of every object. */}}
{{- define "signet.labels" -}}
{{- $root := first . -}}
{{ include "signet.selector" . }}
app.kubernetes.io/part-of: signet
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* signet.selector (root, component): the labels that select a program's pods. */}}
{{- define "signet.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- end -}}

{{/* signet.meta (root, component, name, namespace): metadata of an object; namespace "" for cluster-wide ones. */}}
{{- define "signet.meta" -}}
name: {{ index . 2 }}
{{- with index . 3 }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "signet.labels" . | nindent 2 }}
{{- end -}}

{{/* signet.image (root, part's values): the image's reference. */}}
{{- define "signet.image" -}}
{{- $root := first . -}}
{{- $image := merge dict ((last .).image | default dict) -}}
{{- $registry := $root.Values.global.spire.image.registry | default $image.registry | default $root.Values.image.registry -}}
{{- $repository := $image.repository | default $root.Values.image.repository -}}
{{- if regexMatch "spiffe/spi(re|ffe)-" $repository -}}
{{- fail (printf "image.repository: %s is SPIRE's, and the chart starts `signet`; leave it out, and set image.repository once for all programs" $repository) -}}
{{- end -}}
{{- $digest := $image.digest | default (ternary "" $root.Values.image.digest (ne ($image.tag | default "") "")) -}}
{{- $name := ternary (printf "%s/%s" $registry $repository) $repository (ne ($registry | default "") "") -}}
{{- if $digest -}}
{{- printf "%s@%s" $name $digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default $root.Values.image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* signet.container (root, part's values): image and pull policy of a container. */}}
{{- define "signet.container" -}}
image: {{ include "signet.image" . | quote }}
imagePullPolicy: {{ ((last .).image | default dict).pullPolicy | default (first .).Values.image.pullPolicy }}
{{- end -}}

{{/* signet.podMeta (root, part's values, component, text whose change restarts the pods): a pod template's metadata. */}}
{{- define "signet.podMeta" -}}
{{- $part := index . 1 -}}
annotations:
  kubectl.kubernetes.io/default-container: {{ index . 2 }}
  checksum/config: {{ index . 3 | sha256sum }}
  {{- with $part.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "signet.labels" (list (first .) (index . 2)) | nindent 2 }}
  {{- with $part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* signet.podSpec (root, part's values, service account, component): what all pod specs share. */}}
{{- define "signet.podSpec" -}}
{{- $root := first . -}}
{{- $part := index . 1 -}}
serviceAccountName: {{ index . 2 }}
{{- with concat ($root.Values.global.imagePullSecrets | default list) ($part.imagePullSecrets | default list) }}
imagePullSecrets:
  {{- range . }}
  - name: {{ kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . }}
  {{- end }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* signet.podSecurity (root, part's values): the security context of pods that need nothing of the node. */}}
{{- define "signet.podSecurity" -}}
{{- $own := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if not (first .).Values.global.openshift -}}
{{- $own = merge $own (dict "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532 "fsGroupChangePolicy" "OnRootMismatch") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $own ((last .).podSecurityContext | default dict)) -}}
{{- end -}}

{{/* signet.security (own, given): a container's security context; what is given wins. */}}
{{- define "signet.security" -}}
{{- $own := merge (deepCopy (first .)) (dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL"))) -}}
{{- toYaml (mergeOverwrite $own ((last .) | default dict)) -}}
{{- end -}}

{{/* signet.probe (probe's values, path): an HTTP probe at the port `health`. */}}
{{- define "signet.probe" -}}
httpGet:
  path: {{ last . }}
  port: health
{{- with first . }}
{{ toYaml . }}
{{- end }}
{{- end -}}
