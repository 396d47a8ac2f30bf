{{/* signet.agentConf: agent.conf, in its JSON form. */}}
{{- define "signet.agentConf" -}}
{{- $x := .Values.x -}}
{{- $agent := index .Values "spire-agent" -}}
{{- $k8s := $agent.workloadAttestors.k8s -}}
{{- $block := dict
  "trust_domain" $x.trustDomain
  "server_address" $x.serverAddress
  "server_port" $x.serverPort
  "socket_path" $agent.socketPath
  "data_dir" "/var/lib/spire/agent"
  "log_level" (upper $agent.logLevel)
  "log_format" $agent.logFormat
-}}
{{- if $agent.trustBundleURL -}}
{{- $_ := set $block "trust_bundle_url" $agent.trustBundleURL -}}
{{- $_ := set $block "trust_bundle_format" $agent.trustBundleFormat -}}
{{- else -}}
{{- $_ := set $block "trust_bundle_path" (ternary (printf "/run/spire/bundle/%s" (base $agent.trustBundleHostPath)) "/run/spire/bundle/bundle.crt" (ne $agent.trustBundleHostPath "")) -}}
{{- if $agent.trustBundleHostPath -}}{{- $_ := set $block "trust_bundle_format" $agent.trustBundleFormat -}}{{- end -}}
{{- end -}}
{{- if $agent.availabilityTarget -}}{{- $_ := set $block "availability_target" $agent.availabilityTarget -}}{{- end -}}
{{- if $agent.experimental.syncInterval -}}{{- $_ := set $block "experimental" (dict "sync_interval" $agent.experimental.syncInterval) -}}{{- end -}}
{{- if $agent.sds.enabled -}}
{{- $_ := set $block "sds" (dict
  "default_svid_name" $agent.sds.defaultSVIDName
  "default_bundle_name" $agent.sds.defaultBundleName
  "default_all_bundles_name" $agent.sds.defaultAllBundlesName
  "disable_spiffe_cert_validation" $agent.sds.disableSPIFFECertValidation) -}}
{{- else -}}
{{- $_ := set $block "disable_sds_api" true -}}
{{- end -}}
{{- $workload := dict -}}
{{- if $agent.workloadAttestors.unix.enabled -}}{{- $_ := set $workload "unix" (dict "plugin_data" dict) -}}{{- end -}}
{{- if $k8s.enabled -}}
{{- $data := dict "kubelet_secure_port" (int $k8s.kubeletPort) "disable_container_selectors" $k8s.disableContainerSelectors -}}
{{- if eq $x.verification "skip" -}}{{- $_ := set $data "skip_kubelet_verification" true -}}{{- end -}}
{{- if eq $x.verification "hostCert" -}}{{- $_ := set $data "kubelet_ca_path" (printf "/run/spire/kubelet-pki/%s" $k8s.verification.hostCert.fileName) -}}{{- end -}}
{{- if not $agent.hostNetwork -}}{{- $_ := set $data "node_name_env" "MY_NODE_NAME" -}}{{- end -}}
{{- $_ := set $workload "k8s" (dict "plugin_data" $data) -}}
{{- end -}}
{{- $keys := dict "disk" (dict "plugin_data" (dict "directory" "/var/lib/spire/agent")) -}}
{{- if $agent.keyManager.memory.enabled -}}{{- $keys = dict "memory" (dict "plugin_data" dict) -}}{{- end -}}
{{- $conf := dict "agent" $block
  "plugins" (dict
    "KeyManager" $keys
    "NodeAttestor" (dict "k8s_psat" (dict "plugin_data" (dict "cluster" $x.clusterName "token_path" "/var/run/secrets/tokens/spire-agent")))
    "WorkloadAttestor" $workload)
  "health_checks" (dict "listener_enabled" true "bind_address" "0.0.0.0" "bind_port" (int $agent.healthChecks.port) "live_path" "/live" "ready_path" "/ready")
-}}
{{- if $x.agentFigures -}}{{- $_ := set $conf "telemetry" (dict "Prometheus" (dict "host" "0.0.0.0" "port" (int $agent.telemetry.prometheus.port))) -}}{{- end -}}
{{- toPrettyJson $conf -}}
{{- end -}}
