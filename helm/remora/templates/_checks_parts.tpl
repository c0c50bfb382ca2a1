{{/* Values that are right by themselves and clash with what the chart says, or with each other: messages as a JSON array. */}}
{{- define "remora.checksParts" -}}
{{- $v := .Values }}
{{- $bad := list }}

{{- /* Labels: the chart's own are what selectors look for, and a key may be there once. */}}
{{- $places := dict "podLabels" $v.podLabels "commonLabels" $v.commonLabels "metrics.labels" $v.metrics.labels "metrics.dashboard.labels" $v.metrics.dashboard.labels }}
{{- range $place, $labels := $places }}
{{- range $key, $_ := $labels }}
{{- if has $key (list "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by") }}
{{- $bad = append $bad (printf "%s: %s is a label of the chart itself" $place $key) }}
{{- else if and (ne $place "commonLabels") (hasKey $v.commonLabels $key) }}
{{- $bad = append $bad (printf "%s: %s is in commonLabels already" $place $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.dns.hostname (hasKey $v.service.annotations "external-dns.alpha.kubernetes.io/hostname") }}
{{- $bad = append $bad "service.annotations: external-dns.alpha.kubernetes.io/hostname is what dns.hostname sets" }}
{{- end }}

{{- /* Ports of the Service. */}}
{{- $names := list }}{{ $ports := list }}{{ $nodePorts := list }}
{{- range $i, $port := $v.service.ports }}
{{- $own := has $port.name (list "peers" "metrics" "tests") }}
{{- if or $own (has $port.name $names) }}
{{- $bad = append $bad (printf "service.ports.%d.name: '%s' is the name of another port%s" $i $port.name (ternary " of the chart" "" $own)) }}
{{- end }}
{{- if has (int $port.port) $ports }}
{{- $bad = append $bad (printf "service.ports.%d.port: %d is there twice" $i (int $port.port)) }}
{{- end }}
{{- if $port.nodePort }}
{{- if eq $v.service.type "ClusterIP" }}
{{- $bad = append $bad (printf "service.ports.%d.nodePort: needs service.type NodePort or LoadBalancer" $i) }}
{{- else if has (int $port.nodePort) $nodePorts }}
{{- $bad = append $bad (printf "service.ports.%d.nodePort: %d is there twice" $i (int $port.nodePort)) }}
{{- end }}
{{- $nodePorts = append $nodePorts (int $port.nodePort) }}
{{- end }}
{{- $names = append $names $port.name }}
{{- $ports = append $ports (int $port.port) }}
{{- end }}

{{- /* A table that names the section which is not there. A section of this name of the user's own is all right. */}}
{{- if not $v.peers.enabled }}
{{- $texts := dict "config" $v.config }}
{{- range $name, $text := $v.files }}{{ if hasSuffix ".cfg" $name }}{{ $_ := set $texts (printf "files.%s" $name) $text }}{{ end }}{{ end }}
{{- $all := join "\n" (values $texts) }}
{{- if and (not $v.existingConfigMap) (not (regexMatch "(?m)^[ \t]*peers[ \t]+cluster\\b" $all)) }}
{{- range $place, $text := $texts }}
{{- if regexMatch "(?m)^[^#\n]*[ \t]peers[ \t]+cluster\\b" $text }}
{{- $bad = append $bad (printf "%s: says 'peers cluster', but peers.enabled is false: no section of this name is made" $place) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What the chart says in 'global', or what would end the process or make pods one: the user's file is read later and would win. */}}
{{- if not $v.existingConfigMap }}
{{- $texts := dict "config" $v.config }}
{{- range $name, $text := $v.files }}{{ if hasSuffix ".cfg" $name }}{{ $_ := set $texts (printf "files.%s" $name) $text }}{{ end }}{{ end }}
{{- $instead := dict "hard-stop-after" "drain.hardStopSeconds" "grace" "drain.graceSeconds" "handoff" "handoff" "user" "userId" "uid" "userId" "group" "userId" "gid" "userId" "daemon" "" "chroot" "" "pidfile" "" "localpeer" "" }}
{{- range $place, $text := $texts }}
{{- $global := false }}
{{- range $line := splitList "\n" (tpl $text $) }}
{{- $word := regexFind "^[^ \t#]+" (trim $line) }}
{{- if has $word (list "global" "defaults" "frontend" "backend" "listen" "peers" "userlist" "resolvers" "mailers" "cache" "program" "ring" "http-errors" "log-forward" "fcgi-app" "traces") }}
{{- $global = eq $word "global" }}
{{- else if and $global (hasKey $instead $word) }}
{{- $value := get $instead $word }}
{{- $bad = append $bad (printf "%s: says '%s' in 'global'; %s" $place $word (ternary "in a pod it does no good" (printf "set %s, which the chart makes that of" $value) (eq $value ""))) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Certificates: cert-manager refuses the first, and with the second an alert would never end. */}}
{{- if and $v.peers.enabled (eq $v.peers.tls.source "certManager") }}
{{- $before := int (include "remora.seconds" $v.peers.tls.certManager.renewBefore) }}
{{- if le (int (include "remora.seconds" $v.peers.tls.certManager.duration)) $before }}
{{- $bad = append $bad (printf "peers.tls.certManager.duration: %s must be more than renewBefore (%s)" $v.peers.tls.certManager.duration $v.peers.tls.certManager.renewBefore) }}
{{- end }}
{{- if and $v.metrics.rules.enabled (ge (mul 86400 $v.metrics.rules.certificateDays) $before) }}
{{- $bad = append $bad (printf "metrics.rules.certificateDays: %d days must be less than peers.tls.certManager.renewBefore (%s), or there is always an alert" (int $v.metrics.rules.certificateDays) $v.peers.tls.certManager.renewBefore) }}
{{- end }}
{{- end }}

{{- /* Arguments that the chart gives, or that make no sense in a pod. */}}
{{- range $i, $arg := $v.extraArgs }}
{{- if has $arg (list "-L" "-W" "-Ws" "-S" "--watch" "-D" "-db" "-d" "-p" "-c" "-cc" "-C" "-x" "-sf" "-st" "-v" "-vv" "--help" "--probe" "--handoff-dir") }}
{{- $bad = append $bad (printf "extraArgs.%d: %s is not to be changed in a pod" $i $arg) }}
{{- end }}
{{- end }}

{{- /* Names in the pod. */}}
{{- range $i, $entry := $v.extraEnv }}
{{- if has $entry.name (list "POD_NAME" "POD_IP" "NODE_NAME") }}
{{- $bad = append $bad (printf "extraEnv.%d.name: %s is set by the chart" $i $entry.name) }}
{{- end }}
{{- end }}
{{- range $i, $volume := $v.extraVolumes }}
{{- if has $volume.name (list "run" "handoff" "chart" "conf" "peers-tls") }}
{{- $bad = append $bad (printf "extraVolumes.%d.name: '%s' is a volume of the chart" $i $volume.name) }}
{{- end }}
{{- end }}
{{- range $i, $mount := $v.extraVolumeMounts }}
{{- if has (trimSuffix "/" $mount.mountPath) (list "/run/remora" "/run/remora-handoff" "/etc/remora/chart" "/etc/remora/conf" "/etc/remora/tls") }}
{{- $bad = append $bad (printf "extraVolumeMounts.%d.mountPath: at %s the chart mounts something of its own" $i $mount.mountPath) }}
{{- end }}
{{- end }}
{{- $containers := list "remora" "handoff" }}
{{- range $place := list "initContainers" "extraContainers" }}
{{- range $i, $container := index $v $place }}
{{- if has $container.name $containers }}
{{- $bad = append $bad (printf "%s.%d.name: '%s' is the name of another container" $place $i $container.name) }}
{{- end }}
{{- $containers = append $containers $container.name }}
{{- if $v.restricted }}
{{- $bad = concat $bad (include "remora.checksRestricted" (list (printf "%s.%d" $place $i) $container) | fromJsonArray) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $v.restricted }}
{{- range $i, $volume := $v.extraVolumes }}
{{- range $kind, $_ := omit $volume "name" }}
{{- if not (has $kind (list "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "persistentVolumeClaim" "projected" "secret")) }}
{{- $bad = append $bad (printf "extraVolumes.%d.%s: Pod Security \"restricted\" does not allow it; set restricted: false to use it" $i $kind) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $bad }}
{{- end }}

{{/* What an upgrade could not do with the pods that run: messages as a JSON array. Without a cluster ('helm template') there are none. */}}
{{- define "remora.checksUpgrade" -}}
{{- $bad := list }}
{{- $old := dict }}
{{- if and .Release.IsUpgrade .Values.hostNetwork }}
{{- $old = lookup "apps/v1" "DaemonSet" .Release.Namespace (include "remora.fullname" .) }}
{{- end }}
{{- $spec := dig "spec" "template" "spec" dict $old }}
{{- if and $spec.hostNetwork (not (has (toString (dig "maxSurge" 0 (fromYaml (include "remora.strategy" .)).rollingUpdate)) (list "0" "0%"))) }}
{{- $before := "" }}
{{- range $spec.volumes }}{{ if eq .name "handoff" }}{{ $before = .hostPath.path }}{{ end }}{{ end }}
{{- $after := "" }}
{{- if include "remora.handoff" . }}{{ $after = include "remora.handoffPath" . }}{{ end }}
{{- if ne $before $after }}
{{- $bad = append $bad (printf "updateStrategy: pods that run meet in '%s', new ones would in '%s' ('userId', 'privilegedPorts' or 'handoff' has changed), and could not take over their ports. For this upgrade add --set updateStrategy.maxUnavailable=1: it ends the old pods first, and ports refuse connections meanwhile" (default "no directory" $before) (default "no directory" $after)) }}
{{- end }}
{{- end }}
{{- toJson $bad }}
{{- end }}

{{/* What Pod Security "restricted" would refuse about a container of the user's: call with a list of its path and itself. What is
said for the whole pod (no root, the seccomp profile) holds for it, too, unless it says otherwise. */}}
{{- define "remora.checksRestricted" -}}
{{- $path := index . 0 }}
{{- $container := index . 1 }}
{{- $security := dig "securityContext" dict $container }}
{{- $wrong := list }}
{{- if dig "privileged" false $security }}{{ $wrong = append $wrong "privileged" }}{{ end }}
{{- if ne (toString (dig "allowPrivilegeEscalation" "unset" $security)) "false" }}{{ $wrong = append $wrong "allowPrivilegeEscalation (must be false)" }}{{ end }}
{{- if not (has "ALL" (dig "capabilities" "drop" list $security)) }}{{ $wrong = append $wrong "capabilities.drop (must be [ALL])" }}{{ end }}
{{- if without (dig "capabilities" "add" list $security) "NET_BIND_SERVICE" }}{{ $wrong = append $wrong "capabilities.add" }}{{ end }}
{{- if eq (toString (dig "runAsNonRoot" true $security)) "false" }}{{ $wrong = append $wrong "runAsNonRoot" }}{{ end }}
{{- if eq (toString (dig "runAsUser" 1 $security)) "0" }}{{ $wrong = append $wrong "runAsUser" }}{{ end }}
{{- if eq (dig "seccompProfile" "type" "RuntimeDefault" $security) "Unconfined" }}{{ $wrong = append $wrong "seccompProfile.type" }}{{ end }}
{{- $bad := list }}
{{- range $wrong }}
{{- $bad = append $bad (printf "%s.securityContext.%s: Pod Security \"restricted\" does not allow it; set restricted: false to use it" $path .) }}
{{- end }}
{{- toJson $bad }}
{{- end }}

{{/* The seconds of a duration as cert-manager writes it: 2160h, 1h30m. */}}
{{- define "remora.seconds" -}}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+[hms]" . -1 }}
{{- $number := int (regexFind "[0-9]+" .) }}
{{- $sum = add $sum (mul $number (ternary 3600 (ternary 60 1 (hasSuffix "m" .)) (hasSuffix "h" .))) }}
{{- end }}
{{- $sum }}
{{- end }}
