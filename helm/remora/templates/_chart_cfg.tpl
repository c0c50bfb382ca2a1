{{/* The part of the configuration that belongs to the chart: read before the user's. Call with a dict: "root", and "check" if it is
only to be read (by the Job before an upgrade), where neither certificates nor directories are. */}}
{{- define "remora.chartConfig" -}}
{{- $check := .check }}
{{- with .root -}}
# Made by the Helm chart. Your own configuration is read after this file.
global
    admin bind unix@/run/remora/admin.sock mode 600
    stats socket unix@/run/remora/remora.sock mode 600 level admin
{{- if .Values.cli.enabled }}
    stats socket 127.0.0.1:{{ .Values.cli.port }} level {{ .Values.cli.level }}
{{- end }}
{{- if .Values.metrics.enabled }}
    admin bind {{ if .Values.ipv6 }}[::]{{ end }}:{{ .Values.metrics.port }}
{{- end }}
    # A pod that is to stop accepts for a moment, then finishes what runs.
    grace {{ .Values.drain.graceSeconds }}s
    hard-stop-after {{ .Values.drain.hardStopSeconds }}s
{{- if and (include "remora.handoff" .) (not $check) }}
    # A new pod of this node finds the old one here, and takes over its sockets and tables.
    handoff /run/remora-handoff/
{{- end }}
{{- if .Values.peers.enabled }}
{{- $name := include "remora.peersName" . }}

peers cluster
    cluster {{ .Release.Namespace }}.{{ include "remora.fullname" . }}
{{- if and (include "remora.peersTls" .) (not $check) }}
    default-bind ssl crt /etc/remora/tls/tls.crt key /etc/remora/tls/tls.key ca-file /etc/remora/tls/ca.crt verify required
    default-server ssl ca-file /etc/remora/tls/ca.crt verify required verifyhost {{ $name }}
{{- else }}
    allow-plaintext
{{- end }}
    bind {{ include "remora.bind" (list . .Values.peers.port) }}
    learn-timeout {{ .Values.peers.learnTimeout }}
    discover dns {{ $name }}.:{{ .Values.peers.port }} every {{ .Values.peers.every }}
{{- end }}
{{- if include "remora.tests" . }}

# For 'helm test': count a key through this pod, read what the cluster has counted.
frontend remora-test
    bind {{ include "remora.bind" (list . .Values.tests.port) }} maxconn 20
    mode http
    timeout client 5s
    stick-table type string len 64 size 1k expire 2m store gpc0 peers cluster
{{- with .Values.tests.allowFrom }}
    tcp-request connection reject unless { src {{ join " " . }} }
{{- end }}
    http-request track-sc0 url_param(count) if { url_param(count) -m found }
    http-request sc-inc-gpc0(0) if { url_param(count) -m found }
    http-request return status 200 content-type text/plain lf-string "%[sc0_get_gpc0]\n" if { url_param(count) -m found }
    http-request return status 200 content-type text/plain lf-string "%[url_param(read),table_gpc0(remora-test)]\n" if { url_param(read) -m found }
    http-request deny deny_status 404
{{- end }}
{{- end }}
{{ end }}
