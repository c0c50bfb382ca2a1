{{- define "remora.pod" -}}
{{- $v := .Values }}
metadata:
  labels:
    {{- include "remora.selector" . | nindent 4 }}
    {{- with $v.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $v.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "remora.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $v.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  {{- with $v.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $root := include "remora.root" . }}
  {{- $handoff := include "remora.handoff" . }}
  securityContext:
    {{- if $root }}
    # Only root may have a capability in a container that cannot gain privileges.
    runAsNonRoot: false
    runAsUser: 0
    runAsGroup: 0
    {{- else }}
    runAsNonRoot: true
    runAsUser: {{ $v.userId }}
    runAsGroup: {{ $v.userId }}
    fsGroup: {{ $v.userId }}
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
    {{- if and $v.privilegedPorts (not $v.hostNetwork) }}
    sysctls:
      - name: net.ipv4.ip_unprivileged_port_start
        value: "0"
    {{- end }}
  terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $v.tolerateAll }}
  tolerations:
    - operator: Exists
  {{- else if $v.tolerations }}
  tolerations:
    {{- toYaml $v.tolerations | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $v.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml $v.topologySpreadConstraints | nindent 4 }}
  {{- else if eq $v.kind "Deployment" }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "remora.selector" . | nindent 10 }}
  {{- end }}
  {{- $prepare := and $handoff (not $root) }}
  {{- if or $prepare $v.initContainers }}
  initContainers:
    {{- if $prepare }}
    # The kubelet makes the directory for root; this gives it to the user of the process.
    - name: handoff
      image: {{ include "remora.image" . }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      command: [{{ $v.image.command }}, --handoff-dir, /run/remora-handoff, {{ printf "%d:%d" (int $v.userId) (int $v.userId) | quote }}]
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {memory: 64Mi}
      securityContext:
        runAsNonRoot: false
        runAsUser: 0
        runAsGroup: 0
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
          add: [CHOWN]
      volumeMounts:
        - name: handoff
          mountPath: /run/remora-handoff
    {{- end }}
    {{- with $v.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - name: remora
      image: {{ include "remora.image" . }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      command:
        - {{ $v.image.command }}
      args:
        # A supervisor and a worker; changed files are taken over without a restart.
        - -W
        - --watch
        - -S
        - /run/remora/master.sock,mode,600
        - -L
        - {{ if $v.hostNetwork }}$(NODE_NAME){{ else }}$(POD_NAME){{ end }}
        - -f
        - /etc/remora/chart
        - -f
        - /etc/remora/conf
        {{- with $v.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        {{- include "remora.env" . | trim | nindent 8 }}
      {{- with $v.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if not $v.hostNetwork }}
      ports:
        {{- $seen := list }}
        {{- range $v.service.ports }}
        {{- if not (has (int .targetPort) $seen) }}
        {{- $seen = append $seen (int .targetPort) }}
        - name: {{ .name }}
          containerPort: {{ .targetPort }}
        {{- end }}
        {{- end }}
        {{- if $v.peers.enabled }}
        - name: peers
          containerPort: {{ $v.peers.port }}
        {{- end }}
        {{- if $v.metrics.enabled }}
        - name: metrics
          containerPort: {{ $v.metrics.port }}
        {{- end }}
        {{- if include "remora.tests" . }}
        - name: tests
          containerPort: {{ $v.tests.port }}
        {{- end }}
      {{- end }}
      # Asked through the pod's own socket: on the host network a port could be answered by another pod.
      startupProbe:
        exec:
          command: [{{ $v.image.command }}, --probe, live, /run/remora/admin.sock]
        timeoutSeconds: 6
        periodSeconds: {{ $v.probes.startup.periodSeconds }}
        failureThreshold: {{ $v.probes.startup.failureThreshold }}
      readinessProbe:
        exec:
          command: [{{ $v.image.command }}, --probe, ready, /run/remora/admin.sock]
        timeoutSeconds: 6
        periodSeconds: {{ $v.probes.readiness.periodSeconds }}
        failureThreshold: {{ $v.probes.readiness.failureThreshold }}
      livenessProbe:
        exec:
          command: [{{ $v.image.command }}, --probe, live, /run/remora/admin.sock]
        timeoutSeconds: 6
        periodSeconds: {{ $v.probes.liveness.periodSeconds }}
        failureThreshold: {{ $v.probes.liveness.failureThreshold }}
      {{- with $v.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
          {{- if $root }}
          add: [NET_BIND_SERVICE]
          {{- end }}
      volumeMounts:
        - name: run
          mountPath: /run/remora
        {{- if $handoff }}
        - name: handoff
          mountPath: /run/remora-handoff
        {{- end }}
        - name: chart
          mountPath: /etc/remora/chart
          readOnly: true
        - name: conf
          mountPath: /etc/remora/conf
          readOnly: true
        {{- if include "remora.peersTls" . }}
        - name: peers-tls
          mountPath: /etc/remora/tls
          readOnly: true
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $v.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: run
      emptyDir:
        medium: Memory
        sizeLimit: 1Mi
    {{- if $handoff }}
    - name: handoff
      hostPath:
        path: {{ include "remora.handoffPath" . }}
        type: DirectoryOrCreate
    {{- end }}
    - name: chart
      configMap:
        name: {{ include "remora.fullname" . }}-chart
    - name: conf
      configMap:
        name: {{ default (include "remora.fullname" .) $v.existingConfigMap }}
    {{- if include "remora.peersTls" . }}
    - name: peers-tls
      secret:
        secretName: {{ include "remora.peersSecret" . }}
        defaultMode: 0440
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
