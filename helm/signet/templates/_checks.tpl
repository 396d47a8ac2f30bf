{{/*
signet.checks fails, with all reasons at once, on values that would not do what they say: those that strictMode refuses,
those that contradict each other, and those of SPIRE's charts that Signet cannot serve. Prints nothing.
*/}}
{{- define "signet.checks" -}}
{{- $x := .Values.x -}}
{{- range $_, $row := (.Files.Get "files/unsupported.yaml" | fromYaml).rows -}}
{{- if include "signet.truthy" (dict "v" $.Values "path" (splitList "." $row.path)) -}}
{{- $line := printf "%s: %s" $row.path $row.why -}}
{{- if $row.refused -}}{{- include "signet.problem" (list $ $line) -}}{{- else -}}{{- include "signet.note" (list $ $line) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- include "signet.checks.server" . -}}
{{- include "signet.checks.parts" . -}}
{{- if $x.strict -}}
{{- if has $x.trustDomain (list "example.org") -}}{{- include "signet.problem" (list . "global.spire.trustDomain: strictMode wants a trust domain of your own; set it, such as --set global.spire.trustDomain=corp.example") -}}{{- end -}}
{{- if has $x.clusterName (list "example-cluster") -}}{{- include "signet.problem" (list . "global.spire.clusterName: strictMode wants a name of your own; it becomes part of agents' SPIFFE IDs") -}}{{- end -}}
{{- if and $x.serverOn (eq (index .Values "spire-server").persistence.type "emptyDir") -}}{{- include "signet.problem" (list . "spire-server.persistence.type: strictMode refuses emptyDir: entries and keys would be gone with the pod; use pvc") -}}{{- end -}}
{{- if eq .Values.image.tag "latest" -}}{{- include "signet.problem" (list . "image.tag: strictMode refuses latest; give a version, or image.digest") -}}{{- end -}}
{{- range $note := $x.notes -}}{{- include "signet.problem" (list $ $note) -}}{{- end -}}
{{- end -}}
{{- if $x.problems -}}
{{- fail (printf "\n%d value(s) cannot be used:\n  %s\n(docs/kubernetes.md has the table of SPIRE's values)" (len $x.problems) (join "\n  " $x.problems)) -}}
{{- end -}}
{{- end -}}

{{- define "signet.checks.server" -}}
{{- $x := .Values.x -}}
{{- $server := index .Values "spire-server" -}}
{{- if $x.serverOn -}}
{{- if gt (int $server.replicaCount) 1 -}}{{- include "signet.note" (list . (printf "spire-server.replicaCount: %d asked for, 1 rendered: replicas need a shared database, which the server does not have yet" (int $server.replicaCount))) -}}{{- end -}}
{{- with $server.dataStore.sql.databaseType -}}
{{- if ne . "sqlite3" -}}{{- include "signet.problem" (list $ (printf "spire-server.dataStore.sql.databaseType: %s is not supported; use sqlite3 (on the volume of spire-server.persistence)" .)) -}}{{- end -}}
{{- end -}}
{{- with $server.kind -}}
{{- if ne . "statefulset" -}}{{- include "signet.problem" (list $ (printf "spire-server.kind: %s is not supported; use statefulset: the server owns its volume" .)) -}}{{- end -}}
{{- end -}}
{{- if and (eq $server.persistence.type "hostPath") (not $server.persistence.hostPath) -}}{{- include "signet.problem" (list . "spire-server.persistence.hostPath: give a folder of the node, such as /var/lib/spire/server") -}}{{- end -}}
{{- with $server.controllerManager.staticManifestMode -}}
{{- if ne . "off" -}}{{- include "signet.problem" (list $ "spire-server.controllerManager.staticManifestMode: only off is supported; apply the manifests to the cluster") -}}{{- end -}}
{{- end -}}
{{- if not (or $server.nodeAttestor.k8sPSAT.enabled $server.nodeAttestor.joinToken.enabled) -}}{{- include "signet.problem" (list . "spire-server.nodeAttestor: no attestor is on; enable k8sPSAT or joinToken") -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "signet.checks.parts" -}}
{{- $x := .Values.x -}}
{{- $agent := index .Values "spire-agent" -}}
{{- $csi := index .Values "spiffe-csi-driver" -}}
{{- $monitors := .Values.global.telemetry.prometheus -}}
{{- if not (or $x.serverOn $x.agentOn $x.csiOn $x.injectorOn) -}}{{- include "signet.problem" (list . "everything is off: enable at least one of spire-server, spire-agent, spiffe-csi-driver and injector") -}}{{- end -}}
{{- if and $x.agentOn $csi.agentSocketPath (ne $csi.agentSocketPath $agent.socketPath) -}}{{- include "signet.problem" (list . (printf "spiffe-csi-driver.agentSocketPath: %s is not spire-agent.socketPath (%s); leave it out" $csi.agentSocketPath $agent.socketPath)) -}}{{- end -}}
{{- if and $x.agentOn (not $agent.nodeAttestor.k8sPSAT.enabled) -}}{{- include "signet.problem" (list . "spire-agent.nodeAttestor.k8sPSAT.enabled: agents in the cluster attest by it; leave it on") -}}{{- end -}}
{{- if and $x.agentOn (eq $x.verification "skip") (not $agent.hostNetwork) -}}{{- include "signet.note" (list . "spire-agent.workloadAttestors.k8s.verification.type: skip without hostNetwork believes whoever answers on the node's address; use apiServerCA or hostCert") -}}{{- end -}}
{{- if and $x.agentOn $x.agentFigures $agent.hostNetwork (eq (int $agent.telemetry.prometheus.port) (int $agent.healthChecks.port)) -}}{{- include "signet.problem" (list . "spire-agent.healthChecks.port and spire-agent.telemetry.prometheus.port: two ports are needed") -}}{{- end -}}
{{- if and $x.injectorOn (eq .Values.injector.volume "csi") (not $x.csiOn) (not $x.serverRelease) -}}{{- include "signet.note" (list . "injector.volume: csi, but this release has no CSI driver; pods wait until one named by spiffe-csi-driver.pluginName is there (or set injector.volume=hostPath)") -}}{{- end -}}
{{- if and $x.injectorOn $x.serverOn (not $x.controllerOn) -}}{{- include "signet.note" (list . (printf "injector: without spire-server.controllerManager nobody registers it; make an entry for %s/%s with the DNS name %s.%s.svc" $x.injectorNs $x.injectorAccount $x.injectorName $x.injectorNs)) -}}{{- end -}}
{{- if and $x.injectorOn (ne $x.socketFile "spire-agent.sock") -}}{{- include "signet.note" (list . (printf "spire-agent.socketPath: injected pods look for spire-agent.sock, not for %s; end it with /spire-agent.sock" $x.socketFile)) -}}{{- end -}}
{{- if $x.serverRelease -}}{{- include "signet.note" (list . (printf "release %s: its name and the values `server`/`agent` are those of guides that install agents as a second release; this one has the server, the controller and the injector" .Release.Name)) -}}{{- end -}}
{{- if and $monitors.podMonitor.enabled $monitors.serviceMonitor.enabled -}}{{- include "signet.problem" (list . "global.telemetry.prometheus: podMonitor and serviceMonitor would count everything twice; enable one") -}}{{- end -}}
{{- if and (or $monitors.podMonitor.enabled $monitors.serviceMonitor.enabled) (not $x.figures) -}}{{- include "signet.problem" (list . "global.telemetry.prometheus.enabled: a monitor without figures; set it to true") -}}{{- end -}}
{{- range $name, $id := (index .Values "spire-server").controllerManager.identities.clusterSPIFFEIDs -}}
{{- if and $id.enabled $id.type (not (has $id.type (list "base" "raw"))) -}}{{- include "signet.note" (list $ (printf "spire-server.controllerManager.identities.clusterSPIFFEIDs.%s: left out: what it is for (%s) is no part of this chart" $name $id.type)) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "signet.problem" -}}{{- $x := (first .).Values.x -}}{{- $_ := set $x "problems" (append $x.problems (last .)) -}}{{- end -}}
{{- define "signet.note" -}}{{- $x := (first .).Values.x -}}{{- $_ := set $x "notes" (append $x.notes (last .)) -}}{{- end -}}

{{/* signet.truthy prints something if a value is set at `path` below `v`; `*` stands for every key. */}}
{{- define "signet.truthy" -}}
{{- $v := .v -}}
{{- $path := .path -}}
{{- if not $path -}}
{{- if $v -}}x{{- end -}}
{{- else if kindIs "map" $v -}}
{{- if eq (first $path) "*" -}}
{{- range $_, $child := $v -}}{{- include "signet.truthy" (dict "v" $child "path" (rest $path)) -}}{{- end -}}
{{- else if hasKey $v (first $path) -}}
{{- include "signet.truthy" (dict "v" (get $v (first $path)) "path" (rest $path)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
