{{/* signet.serverConf: server.conf, in its JSON form. */}}
{{- define "signet.serverConf" -}}
{{- $x := .Values.x -}}
{{- $server := index .Values "spire-server" -}}
{{- $psat := $server.nodeAttestor.k8sPSAT -}}
{{- $block := dict
  "trust_domain" $x.trustDomain
  "bind_address" "0.0.0.0"
  "bind_port" 8081
  "socket_path" "/tmp/spire-server/private/api.sock"
  "data_dir" "/run/spire/data"
  "log_level" (upper $server.logLevel)
  "log_format" $server.logFormat
  "ca_key_type" $server.caKeyType
  "ca_ttl" $server.caTTL
  "default_x509_svid_ttl" $server.defaultX509SvidTTL
  "default_jwt_svid_ttl" $server.defaultJwtSvidTTL
  "admin_ids" $server.adminIDs
  "audit_log_enabled" $server.auditLogEnabled
-}}
{{- if $server.jwtKeyType -}}{{- $_ := set $block "jwt_key_type" $server.jwtKeyType -}}{{- end -}}
{{- if $server.agentTTL -}}{{- $_ := set $block "agent_ttl" $server.agentTTL -}}{{- end -}}
{{- if $x.jwtIssuer -}}{{- $_ := set $block "jwt_issuer" $x.jwtIssuer -}}{{- end -}}
{{- if not $server.jwtSVIDSupport.enabled -}}{{- $_ := set $block "disable_jwt_svids" true -}}{{- end -}}
{{- $subject := .Values.global.spire.caSubject -}}
{{- if or $subject.country $subject.organization $subject.commonName -}}
{{- $_ := set $block "ca_subject" (dict "country" (without (list $subject.country) "") "organization" (without (list $subject.organization) "") "common_name" ($subject.commonName | default "")) -}}
{{- end -}}
{{- $attestors := dict -}}
{{- if $psat.enabled -}}
{{- $allowed := $psat.serviceAccountAllowList | default (list (printf "%s:%s" $x.systemNs $x.agentAccount)) -}}
{{- $cluster := dict "service_account_allow_list" $allowed "audience" $psat.audience "allowed_node_label_keys" $psat.allowedNodeLabelKeys "allowed_pod_label_keys" $psat.allowedPodLabelKeys -}}
{{- $_ := set $attestors "k8s_psat" (dict "plugin_data" (dict "clusters" (dict $x.clusterName $cluster))) -}}
{{- end -}}
{{- if $server.nodeAttestor.joinToken.enabled -}}{{- $_ := set $attestors "join_token" (dict "plugin_data" dict) -}}{{- end -}}
{{- $keys := dict "disk" (dict "plugin_data" (dict "keys_path" "/run/spire/data/keys.json")) -}}
{{- if $server.keyManager.memory.enabled -}}{{- $keys = dict "memory" (dict "plugin_data" dict) -}}{{- end -}}
{{- $plugins := dict
  "DataStore" (dict "sql" (dict "plugin_data" (dict "database_type" "sqlite3" "connection_string" "/run/spire/data/datastore.sqlite3")))
  "KeyManager" $keys
  "NodeAttestor" $attestors
-}}
{{- $conf := dict "server" $block "plugins" $plugins
  "health_checks" (dict "listener_enabled" true "bind_address" "0.0.0.0" "bind_port" 8080 "live_path" "/live" "ready_path" "/ready")
-}}
{{- if $x.serverFigures -}}{{- $_ := set $conf "telemetry" (dict "Prometheus" (dict "host" "0.0.0.0" "port" (int $server.telemetry.prometheus.port))) -}}{{- end -}}
{{- toPrettyJson $conf -}}
{{- end -}}

{{/* signet.controllerConf: the controller's configuration file. */}}
{{- define "signet.controllerConf" -}}
{{- $x := .Values.x -}}
{{- $c := (index .Values "spire-server").controllerManager -}}
{{- $conf := dict
  "apiVersion" "spire.spiffe.io/v1alpha1"
  "kind" "ControllerManagerConfig"
  "trustDomain" $x.trustDomain
  "clusterName" $x.clusterName
  "clusterDomain" $x.clusterDomain
  "className" $x.className
  "watchClassless" $c.watchClassless
  "filterByClassName" $c.filterByClassName
  "ignoreNamespaces" $c.ignoreNamespaces
  "gcInterval" $c.gcInterval
  "logLevel" $c.logLevel
  "spireServerSocketPath" "/tmp/spire-server/private/api.sock"
  "validatingWebhookConfigurationName" (printf "%s-controller" $x.prefix)
  "reconcile" $c.reconcile
  "metrics" (dict "bindAddress" (ternary (printf "0.0.0.0:%d" (int $c.telemetry.prometheus.port)) "0" $x.serverFigures))
  "health" (dict "healthProbeBindAddress" "0.0.0.0:8083")
  "webhook" (dict "port" 9443)
  "leaderElection" (dict "leaderElect" true "resourceName" (printf "%s-controller" $x.prefix) "resourceNamespace" $x.serverNs)
-}}
{{- $notifier := (index .Values "spire-server").notifier.k8sBundle -}}
{{- if $notifier.enabled -}}
{{- $bundle := dict "configMap" $x.bundleConfigMap "namespace" $x.bundleNs -}}
{{- if kindIs "map" $notifier.namespaceSelector -}}{{- $_ := set $bundle "namespaceSelector" $notifier.namespaceSelector -}}{{- end -}}
{{- with $notifier.clusterTrustBundle -}}
{{- if .enabled -}}{{- $_ := set $bundle "clusterTrustBundle" (dict "name" (.name | default $x.bundleConfigMap) "signerName" .signerName) -}}{{- end -}}
{{- end -}}
{{- if $notifier.caBundles.enabled -}}{{- $_ := set $bundle "caBundles" true -}}{{- end -}}
{{- $_ := set $conf "signet" (dict "bundle" $bundle) -}}
{{- end -}}
{{- $own := dict -}}
{{- if $c.tenants -}}{{- $_ := set $own "tenants" $c.tenants -}}{{- end -}}
{{- if $c.dryRun -}}{{- $_ := set $own "dryRun" true -}}{{- end -}}
{{- if $c.adoptFederation -}}{{- $_ := set $own "adoptFederation" true -}}{{- end -}}
{{- if $own -}}{{- $_ := set $conf "signet" (merge $own ($conf.signet | default dict)) -}}{{- end -}}
{{- if $c.parentIDTemplate -}}{{- $_ := set $conf "parentIDTemplate" $c.parentIDTemplate -}}{{- end -}}
{{- if $c.addEntryIDPrefix -}}{{- $_ := set $conf "entryIDPrefix" $x.clusterName -}}{{- end -}}
{{- if not (kindIs "invalid" $c.entryIDPrefixCleanup) -}}{{- $_ := set $conf "entryIDPrefixCleanup" $c.entryIDPrefixCleanup -}}{{- end -}}
{{- toPrettyJson $conf -}}
{{- end -}}
