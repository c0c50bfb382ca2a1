{{/* What the schema cannot say: values that make no sense together. All of them are reported at once. */}}
{{- define "remora.checks" -}}
{{- $v := .Values }}
{{- $bad := list }}
{{- if and $v.restricted $v.hostNetwork }}
{{- $bad = append $bad "hostNetwork: Pod Security \"restricted\" does not allow it; set restricted: false to use it" }}
{{- end }}
{{- if and $v.hostNetwork (ne $v.kind "DaemonSet") }}
{{- $bad = append $bad "kind: with hostNetwork only DaemonSet, or two pods could share a node and its ports" }}
{{- end }}
{{- $zero := list "0" "0%" }}
{{- $surge := not (has (toString $v.updateStrategy.maxSurge) $zero) }}
{{- $missing := not (has (toString $v.updateStrategy.maxUnavailable) $zero) }}
{{- if and $surge $missing }}
{{- $bad = append $bad "updateStrategy: set either maxSurge or maxUnavailable, not both" }}
{{- end }}
{{- if and $surge $v.hostNetwork (not $v.handoff.enabled) }}
{{- $bad = append $bad "updateStrategy.maxSurge: with hostNetwork two pods of a node share its ports, which takes handoff.enabled; or use maxUnavailable" }}
{{- end }}
{{- if and $v.handoff.hostPath (not $v.hostNetwork) }}
{{- $bad = append $bad "handoff.hostPath: needs hostNetwork; on the pod network pods share no sockets" }}
{{- end }}
{{- if and (eq $v.updateStrategy.type "OnDelete") (ne $v.kind "DaemonSet") }}
{{- $bad = append $bad "updateStrategy.type: OnDelete is for a DaemonSet" }}
{{- end }}
{{- if and (eq $v.updateStrategy.type "OnDelete") (or $surge $missing) }}
{{- $bad = append $bad "updateStrategy.type: OnDelete knows neither maxSurge nor maxUnavailable" }}
{{- end }}
{{- if le (int $v.terminationGracePeriodSeconds) (int $v.drain.hardStopSeconds) }}
{{- $bad = append $bad (printf "terminationGracePeriodSeconds: %d must be more than drain.hardStopSeconds (%d), or the pod is killed while it drains" (int $v.terminationGracePeriodSeconds) (int $v.drain.hardStopSeconds)) }}
{{- end }}
{{- if le (int $v.drain.hardStopSeconds) (int $v.drain.graceSeconds) }}
{{- $bad = append $bad (printf "drain.hardStopSeconds: %d must be more than drain.graceSeconds (%d), or no time is left to finish what runs" (int $v.drain.hardStopSeconds) (int $v.drain.graceSeconds)) }}
{{- end }}
{{- if and $v.existingConfigMap $v.files }}
{{- $bad = append $bad "files: they go beside 'config', which existingConfigMap replaces" }}
{{- end }}
{{- if and (not $v.existingConfigMap) (not (trim $v.config)) }}
{{- $bad = append $bad "config: is empty" }}
{{- end }}
{{- if hasKey $v.files "remora.cfg" }}
{{- $bad = append $bad "files.remora.cfg: this name is taken by 'config'" }}
{{- end }}
{{- if and $v.peers.enabled (eq $v.peers.tls.source "secret") (not $v.peers.tls.existingSecret) }}
{{- $bad = append $bad "peers.tls.existingSecret: is empty, but peers.tls.source is 'secret'" }}
{{- end }}
{{- if and $v.peers.tls.existingSecret (ne $v.peers.tls.source "secret") }}
{{- $bad = append $bad (printf "peers.tls.existingSecret: is set, but peers.tls.source is '%s'" $v.peers.tls.source) }}
{{- end }}
{{- if and $v.dns.hostname (eq $v.dns.target "nodes") (not $v.hostNetwork) }}
{{- $bad = append $bad "dns.target: 'nodes' needs hostNetwork, or the nodes do not listen" }}
{{- end }}
{{- if and $v.dns.hostname (eq $v.dns.target "service") (not $v.service.enabled) }}
{{- $bad = append $bad "dns.target: 'service' needs service.enabled" }}
{{- end }}
{{- if and $v.cli.enabled $v.hostNetwork }}
{{- $bad = append $bad "cli.enabled: with hostNetwork the loopback address is the node's, and every process of the node could use the port" }}
{{- end }}
{{- if and (ne $v.metrics.monitor "none") (not $v.metrics.enabled) }}
{{- $bad = append $bad "metrics.monitor: needs metrics.enabled" }}
{{- end }}
{{- if and $v.metrics.rules.enabled (not $v.metrics.enabled) }}
{{- $bad = append $bad "metrics.rules.enabled: needs metrics.enabled" }}
{{- end }}
{{- if and (eq $v.service.type "ClusterIP") $v.service.loadBalancerClass }}
{{- $bad = append $bad "service.loadBalancerClass: needs service.type LoadBalancer" }}
{{- end }}
{{- $bad = concat $bad (include "remora.checksParts" . | fromJsonArray) (include "remora.checksUpgrade" . | fromJsonArray) }}
{{- $ports := list }}
{{- if $v.peers.enabled }}{{ $ports = append $ports (int $v.peers.port) }}{{ end }}
{{- if $v.metrics.enabled }}{{ $ports = append $ports (int $v.metrics.port) }}{{ end }}
{{- if include "remora.tests" . }}{{ $ports = append $ports (int $v.tests.port) }}{{ end }}
{{- if $v.cli.enabled }}{{ $ports = append $ports (int $v.cli.port) }}{{ end }}
{{- range $v.service.ports }}
{{- if has (int .targetPort) $ports }}
{{- $bad = append $bad (printf "service.ports: targetPort %d is a port of the chart itself (peers, metrics, tests or cli)" (int .targetPort)) }}
{{- end }}
{{- end }}
{{- if ne (len $ports) (len (uniq $ports)) }}
{{- $bad = append $bad "peers.port, metrics.port, tests.port, cli.port: two of them are the same" }}
{{- end }}
{{- if $bad }}
{{- fail (printf "\n\nThese values do not go together:\n  - %s\n" (join "\n  - " $bad)) }}
{{- end }}
{{- end }}
