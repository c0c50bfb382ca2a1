{{- define "remora.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Shorter than a name may be: suffixes follow. */}}
{{- define "remora.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else if contains (include "remora.name" .) .Release.Name }}
{{- .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "remora.name" .) | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "remora.selector" -}}
app.kubernetes.io/name: {{ include "remora.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: proxy
{{- end }}

{{- define "remora.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "remora.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "remora.testSelector" -}}
app.kubernetes.io/name: {{ include "remora.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "remora.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "remora.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "remora.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/* The name of the peers' Service, which certificates carry. */}}
{{- define "remora.peersName" -}}
{{ include "remora.fullname" . }}-peers.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{- define "remora.peersSecret" -}}
{{- if eq .Values.peers.tls.source "secret" }}{{ .Values.peers.tls.existingSecret }}
{{- else }}{{ include "remora.fullname" . }}-peers
{{- end }}
{{- end }}

{{/* "true" if the peers speak TLS. */}}
{{- define "remora.peersTls" -}}
{{- if and .Values.peers.enabled (ne .Values.peers.tls.source "plaintext") }}true{{ end }}
{{- end }}

{{/* "true" if the pods open the port of the tests. */}}
{{- define "remora.tests" -}}
{{- if and .Values.tests.enabled .Values.peers.enabled (or (not .Values.hostNetwork) .Values.tests.allowFrom) }}true{{ end }}
{{- end }}

{{/* A bind address: call with a list of root and port. */}}
{{- define "remora.bind" -}}
{{- $root := index . 0 }}
{{- if $root.Values.ipv6 }}[::]:{{ index . 1 }} v4v6{{ else }}:{{ index . 1 }}{{ end }}
{{- end }}

{{/* "true" if a new pod takes over sockets and tables from the old pod of its node. */}}
{{- define "remora.handoff" -}}
{{- if and .Values.hostNetwork .Values.handoff.enabled }}true{{ end }}
{{- end }}

{{/* The directory of the node where old and new pods meet. Each user has its own: nobody else could enter it, or trust what is in it. */}}
{{- define "remora.handoffPath" -}}
{{ default (printf "/run/remora/%s.%s" .Release.Namespace (include "remora.fullname" .)) .Values.handoff.hostPath }}/uid-{{ include "remora.user" . }}
{{- end }}

{{/* The user of the process. */}}
{{- define "remora.user" -}}
{{ if include "remora.root" . }}0{{ else }}{{ int .Values.userId }}{{ end }}
{{- end }}

{{/* "true" if the process runs as root. */}}
{{- define "remora.root" -}}
{{- if and .Values.privilegedPorts .Values.hostNetwork }}true{{ end }}
{{- end }}

{{/* Data of the ConfigMap with the user's configuration. */}}
{{- define "remora.userConfig" -}}
remora.cfg: |2
  {{- tpl .Values.config . | trimSuffix "\n" | nindent 2 }}
{{- range $name, $text := .Values.files }}
{{ $name | quote }}: {{ tpl $text $ | toJson }}
{{- end }}
{{- end }}

{{/* Variables for the configuration. */}}
{{- define "remora.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "remora.strategy" -}}
{{- $s := .Values.updateStrategy }}
{{- $surge := $s.maxSurge }}
{{- $missing := $s.maxUnavailable }}
{{- if and (has (toString $surge) (list "0" "0%")) (has (toString $missing) (list "0" "0%")) }}
{{- if and .Values.hostNetwork (not (include "remora.handoff" .)) }}{{ $missing = 1 }}{{ else }}{{ $surge = 1 }}{{ end }}
{{- end }}
type: {{ $s.type }}
{{- if eq $s.type "RollingUpdate" }}
rollingUpdate:
  maxSurge: {{ $surge }}
  maxUnavailable: {{ $missing }}
{{- end }}
{{- end }}
