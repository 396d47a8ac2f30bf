{{/*
signet.init puts everything that templates share into `.Values.x`: names, namespaces, switches, what is refused. Each
template begins with it; only the first call does the work. It prints nothing.
*/}}
{{- define "signet.init" -}}
{{- if not (hasKey .Values "x") -}}
{{- include "signet.aliases" . -}}
{{- $x := dict "problems" list "notes" list -}}
{{- $_ := set .Values "x" $x -}}
{{- $server := index .Values "spire-server" -}}
{{- $agent := index .Values "spire-agent" -}}
{{- $csi := index .Values "spiffe-csi-driver" -}}
{{- $spire := .Values.global.spire -}}
{{- $recommended := $spire.recommendations -}}
{{- $elsewhere := ne $agent.server.address "" -}}

{{/* Guides install server and agents as two releases, each with a values file of its own. */}}
{{- $guide := or .Values.server .Values.agent -}}
{{- $_ := set $x "serverRelease" (and $guide (hasSuffix "-server" .Release.Name)) -}}
{{- $_ := set $x "serverOn" (and $server.enabled (not $elsewhere)) -}}
{{- $_ := set $x "controllerOn" (and $x.serverOn $server.controllerManager.enabled) -}}
{{- $_ := set $x "agentOn" (and $agent.enabled (not $x.serverRelease)) -}}
{{- $_ := set $x "csiOn" (and $csi.enabled (not $x.serverRelease)) -}}
{{- $_ := set $x "injectorOn" (and .Values.injector.enabled (not (and $guide (hasSuffix "-agent" .Release.Name)))) -}}
{{- $_ := set $x "strict" (or $spire.strictMode (and $recommended.enabled $recommended.strictMode)) -}}
{{- $figures := or .Values.global.telemetry.prometheus.enabled (and $recommended.enabled $recommended.prometheus) -}}
{{- $_ := set $x "serverFigures" (or $figures $server.telemetry.prometheus.enabled) -}}
{{- $_ := set $x "agentFigures" (or $figures $agent.telemetry.prometheus.enabled) -}}
{{- $_ := set $x "figures" $figures -}}

{{- $prefix := .Values.fullnameOverride | default .Values.nameOverride | default (.Release.Name | trimSuffix "-server" | trimSuffix "-agent") | trunc 40 | trimSuffix "-" -}}
{{- $_ := set $x "prefix" $prefix -}}
{{- $_ := set $x "serverName" ($server.fullnameOverride | default (printf "%s-server" $prefix)) -}}
{{- $_ := set $x "agentName" ($agent.fullnameOverride | default (printf "%s-agent" $prefix)) -}}
{{- $_ := set $x "csiName" ($csi.fullnameOverride | default (printf "%s-csi-driver" $prefix)) -}}
{{- $_ := set $x "injectorName" (.Values.injector.fullnameOverride | default (printf "%s-injector" $prefix)) -}}
{{- $_ := set $x "webhookService" (printf "%s-controller-webhook" $prefix) -}}

{{- $split := and $recommended.enabled $recommended.namespaceLayout -}}
{{- $_ := set $x "serverNs" ($server.namespaceOverride | default (ternary $spire.namespaces.server.name .Release.Namespace $split)) -}}
{{- $_ := set $x "systemNs" ($agent.namespaceOverride | default (ternary $spire.namespaces.system.name .Release.Namespace $split)) -}}
{{- $_ := set $x "csiNs" ($csi.namespaceOverride | default $x.systemNs) -}}
{{- $_ := set $x "injectorNs" (.Values.injector.namespaceOverride | default $x.serverNs) -}}
{{- $_ := set $x "split" $split -}}

{{- $_ := set $x "serverAccount" ($server.serviceAccount.name | default (ternary $x.serverName "default" $server.serviceAccount.create)) -}}
{{- $_ := set $x "agentAccount" ($agent.serviceAccount.name | default (ternary $x.agentName "default" $agent.serviceAccount.create)) -}}
{{- $_ := set $x "csiAccount" ($csi.serviceAccount.name | default (ternary $x.csiName "default" $csi.serviceAccount.create)) -}}
{{- $_ := set $x "injectorAccount" (.Values.injector.serviceAccount.name | default (ternary $x.injectorName "default" .Values.injector.serviceAccount.create)) -}}

{{- $_ := set $x "trustDomain" ($spire.trustDomain | default $server.trustDomain | default $agent.trustDomain | default "example.org") -}}
{{- $_ := set $x "clusterName" ($spire.clusterName | default $server.clusterName | default $agent.clusterName | default "example-cluster") -}}
{{- $_ := set $x "clusterDomain" ($server.clusterDomain | default .Values.global.k8s.clusterDomain) -}}
{{- $_ := set $x "bundleConfigMap" ($spire.bundleConfigMap | default $server.bundleConfigMap | default $agent.bundleConfigMap | default "spire-bundle") -}}
{{- /* Whether agents start from the ConfigMap. */ -}}
{{- $_ := set $x "bundleThere" (not (or $agent.trustBundleURL $agent.trustBundleHostPath)) -}}
{{- $_ := set $x "bundleNs" ($server.notifier.k8sBundle.namespace | default $x.systemNs) -}}
{{- $_ := set $x "className" ($server.controllerManager.className | default (printf "%s-%s" .Release.Namespace .Release.Name)) -}}
{{- $_ := set $x "jwtIssuer" ($spire.jwtIssuer | default $server.jwtIssuer) -}}
{{- $_ := set $x "serverAddress" ($agent.server.address | default (printf "%s.%s.svc.%s" $x.serverName $x.serverNs $x.clusterDomain)) -}}
{{- $_ := set $x "serverPort" (ternary $agent.server.port $server.service.port $elsewhere | int) -}}
{{- $_ := set $x "socketDir" (dir $agent.socketPath) -}}
{{- $_ := set $x "socketFile" (base $agent.socketPath) -}}
{{- $verification := $agent.workloadAttestors.k8s.verification.type -}}
{{- if eq $verification "auto" -}}{{- $verification = ternary "skip" "apiServerCA" $agent.hostNetwork -}}{{- end -}}
{{- $_ := set $x "verification" $verification -}}
{{- $fine := semverCompare ">=1.33.0-0" .Capabilities.KubeVersion.Version -}}
{{- $_ := set $x "kubeletResource" (ternary (ternary "nodes/pods" "nodes/proxy" $fine) $agent.kubeletAuthorization (eq $agent.kubeletAuthorization "auto")) -}}
{{- include "signet.checks" . -}}
{{- end -}}
{{- end -}}

{{/* signet.aliases takes over what guides and older charts call otherwise. Prints nothing. */}}
{{- define "signet.aliases" -}}
{{- $v := .Values -}}
{{- $server := index $v "spire-server" -}}
{{- $agent := index $v "spire-agent" -}}
{{- if $v.trustDomain -}}{{- $_ := set $v.global.spire "trustDomain" $v.trustDomain -}}{{- end -}}
{{- if $v.clusterName -}}{{- $_ := set $v.global.spire "clusterName" $v.clusterName -}}{{- end -}}
{{- $subject := $v.global.spire.caSubject -}}
{{- range $given := list ($server.ca_subject | default dict) ($server.caSubject | default dict) -}}
{{- range $key, $value := $given -}}
{{- if $value -}}{{- $_ := set $subject (ternary "commonName" $key (eq $key "common_name")) $value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with ($server.notifier.k8sbundle) -}}
{{- if .namespace -}}{{- $_ := set $server.notifier.k8sBundle "namespace" .namespace -}}{{- end -}}
{{- end -}}
{{- with $v.server -}}
{{- if hasKey . "replicaCount" -}}{{- $_ := set $server "replicaCount" .replicaCount -}}{{- end -}}
{{- if .resources -}}{{- $_ := set $server "resources" .resources -}}{{- end -}}
{{- with .dataStorage -}}
{{- if hasKey . "enabled" -}}{{- $_ := set $server.persistence "type" (ternary "pvc" "emptyDir" .enabled) -}}{{- end -}}
{{- if .storageClass -}}{{- $_ := set $server.persistence "storageClass" .storageClass -}}{{- end -}}
{{- if .size -}}{{- $_ := set $server.persistence "size" .size -}}{{- end -}}
{{- end -}}
{{- with .ca -}}
{{- if .keyType -}}{{- $_ := set $server "caKeyType" .keyType -}}{{- end -}}
{{- if .caTTL -}}{{- $_ := set $server "caTTL" .caTTL -}}{{- end -}}
{{- end -}}
{{- with .svid -}}{{- if .defaultTTL -}}{{- $_ := set $server "defaultX509SvidTTL" .defaultTTL -}}{{- end -}}{{- end -}}
{{- with .federation -}}{{- $_ := set $server "federation" . -}}{{- end -}}
{{- with .nodeAttestor -}}{{- with .k8s -}}
{{- if hasKey . "enabled" -}}{{- $_ := set $server.nodeAttestor.k8sPSAT "enabled" .enabled -}}{{- end -}}
{{- if .serviceAccountAllowList -}}{{- $_ := set $server.nodeAttestor.k8sPSAT "serviceAccountAllowList" .serviceAccountAllowList -}}{{- end -}}
{{- end -}}{{- end -}}
{{- with .notifier -}}{{- with .k8sBundle -}}{{- $_ := set $server.notifier "k8sBundle" (mergeOverwrite $server.notifier.k8sBundle .) -}}{{- end -}}{{- end -}}
{{- if .address -}}{{- $_ := set $agent.server "address" .address -}}{{- end -}}
{{- if .port -}}{{- $_ := set $agent.server "port" .port -}}{{- end -}}
{{- end -}}
{{- with $v.agent -}}
{{- if .socketPath -}}{{- $_ := set $agent "socketPath" .socketPath -}}{{- end -}}
{{- if .resources -}}{{- $_ := set $agent "resources" .resources -}}{{- end -}}
{{- with .workloadAttestor -}}{{- with .k8s -}}{{- include "signet.aliases.kubelet" (dict "agent" $agent "k8s" .) -}}{{- end -}}{{- end -}}
{{- with .sds -}}
{{- if hasKey . "enabled" -}}{{- $_ := set $agent.sds "enabled" .enabled -}}{{- end -}}
{{- if .defaultSvidName -}}{{- $_ := set $agent.sds "defaultSVIDName" .defaultSvidName -}}{{- end -}}
{{- if .defaultBundleName -}}{{- $_ := set $agent.sds "defaultBundleName" .defaultBundleName -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- include "signet.aliases.kubelet" (dict "agent" $agent "k8s" $agent.workloadAttestors.k8s) -}}
{{- with $v.controller -}}{{- if hasKey . "enabled" -}}{{- $_ := set $server.controllerManager "enabled" .enabled -}}{{- end -}}{{- end -}}
{{- with $v.csiDriver -}}{{- if hasKey . "enabled" -}}{{- $_ := set (index $v "spiffe-csi-driver") "enabled" .enabled -}}{{- end -}}{{- end -}}
{{- end -}}

{{- define "signet.aliases.kubelet" -}}
{{- $k8s := .agent.workloadAttestors.k8s -}}
{{- if hasKey .k8s "enabled" -}}{{- $_ := set $k8s "enabled" .k8s.enabled -}}{{- end -}}
{{- if .k8s.skipKubeletVerification -}}{{- $_ := set $k8s.verification "type" "skip" -}}{{- end -}}
{{- end -}}
