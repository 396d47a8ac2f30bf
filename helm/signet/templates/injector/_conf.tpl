{{/* signet.injectorConf: the injector's configuration file. */}}
{{- define "signet.injectorConf" -}}
{{- $x := .Values.x -}}
{{- $injector := .Values.injector -}}
{{- $secrets := list -}}
{{- range .Values.global.imagePullSecrets -}}{{- $secrets = append $secrets (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) -}}{{- end -}}
{{- $inject := dict
  "trustDomain" $x.trustDomain
  "ownNamespace" $x.injectorNs
  "excludedNamespaces" (include "signet.never" . | fromJsonArray)
  "defaultMode" $injector.mode
  "strict" $injector.strict
  "socket" (dict "kind" $injector.volume "driver" (index .Values "spiffe-csi-driver").pluginName "hostPath" $x.socketDir)
  "images" (dict "signet" (include "signet.image" (list . $injector)) "envoy" (include "signet.envoyImage" .) "pullPolicy" .Values.image.pullPolicy "pullSecrets" $secrets)
-}}
{{- $conf := dict
  "listen" "0.0.0.0:9443"
  "path" "/mutate-pods"
  "health_address" "0.0.0.0:8083"
  "log_level" (lower $injector.logLevel)
  "strict" $injector.strict
  "namespace" $x.injectorNs
  "exclude_namespaces" (include "signet.never" . | fromJsonArray)
  "certificate" (dict
    "workload_api" (dict "socket" (printf "/spiffe-workload-api/%s" $x.socketFile))
    "dns_names" (list (printf "%s.%s.svc" $x.injectorName $x.injectorNs)))
  "webhook_configurations" (list (dict "kind" "MutatingWebhookConfiguration" "name" $x.injectorName))
  "inject" $inject
-}}
{{- if $x.figures -}}{{- $_ := set $conf "metrics_address" (printf "0.0.0.0:%d" (int $injector.telemetry.prometheus.port)) -}}{{- end -}}
{{- toPrettyJson (mergeOverwrite $conf $injector.config) -}}
{{- end -}}

{{/* signet.never: namespaces that are never injected beside the API's own, as a JSON list. */}}
{{- define "signet.never" -}}
{{- $x := .Values.x -}}
{{- concat (list $x.serverNs $x.systemNs $x.injectorNs $x.csiNs) .Values.injector.webhook.ignoreNamespaces | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* signet.envoyImage: Envoy's image, of the registry that is given for all images. */}}
{{- define "signet.envoyImage" -}}
{{- $image := .Values.injector.envoy.image -}}
{{- $host := regexFind "^([^/]*[.:][^/]*|localhost)/" $image -}}
{{- with .Values.global.spire.image.registry -}}{{- printf "%s/%s" . (trimPrefix $host $image) -}}{{- else -}}{{- $image -}}{{- end -}}
{{- end -}}
