{{- /* The parts of a pod that coordinators and workers share: `root`, `kind`, `of` (the values of the kind), `port`, `scheme`. */ -}}
{{- define "mainstem.pod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "mainstem.serviceAccount" $root }}
# Nobody here speaks to Kubernetes, and variables that Kubernetes makes of services begin like those of options.
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 30
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "mainstem.antiAffinity" . }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
containers:
  - name: {{ .kind }}
    image: "{{ $root.Values.image.repository }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}"
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: [{{ .kind }}]
    env:
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      - name: MAINSTEM_CONFIG
        value: /etc/mainstem/mainstem.toml
      - name: TMPDIR
        value: /var/lib/mainstem
      {{- if eq .kind "worker" }}
      - name: MAINSTEM_NAME
        value: $(POD_NAME)
      - name: MAINSTEM_ADVERTISE
        value: $(POD_NAME).{{ include "mainstem.domain" . }}:7072
      {{- end }}
      {{- with concat $root.Values.env .of.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $root.Values.envFrom }}
    envFrom: {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - {name: cluster, containerPort: {{ .port }}}
      - {name: http, containerPort: 8080}
    startupProbe:
      httpGet: {path: /health, port: http, scheme: {{ .scheme }}}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /health, port: http, scheme: {{ .scheme }}}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: /ready, port: http, scheme: {{ .scheme }}}
      periodSeconds: 5
      timeoutSeconds: 3
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    resources: {{- toYaml .of.resources | nindent 6 }}
    volumeMounts:
      - {name: disk, mountPath: /var/lib/mainstem}
      - name: configuration
        mountPath: /etc/mainstem/mainstem.toml
        {{- if eq .kind "worker" }}
        subPath: worker.toml
        {{- else }}
        subPathExpr: $(POD_NAME).toml
        {{- end }}
        readOnly: true
      - {name: tokens, mountPath: /etc/mainstem/tokens, readOnly: true}
      {{- if include "mainstem.tlsSecret" $root }}
      - {name: tls, mountPath: /etc/mainstem/tls, readOnly: true}
      {{- end }}
      {{- if $root.Values.state.claim }}
      - {name: state, mountPath: /state}
      {{- end }}
      {{- with $root.Values.volumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: configuration
    configMap: {name: {{ include "mainstem.name" $root }}}
  - name: tokens
    secret:
      secretName: {{ $root.Values.http.tokenSecret }}
      items: [{key: tokens, path: tokens}]
      defaultMode: 0440
  {{- with include "mainstem.tlsSecret" $root }}
  - name: tls
    secret: {secretName: {{ . }}, defaultMode: 0440}
  {{- end }}
  {{- with $root.Values.state.claim }}
  - name: state
    persistentVolumeClaim: {claimName: {{ . }}}
  {{- end }}
  {{- if and (eq .kind "worker") (not .of.disk.persistent) }}
  - name: disk
    emptyDir: {sizeLimit: {{ .of.disk.size }}}
  {{- end }}
  {{- with $root.Values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "mainstem.claims" -}}
volumeClaimTemplates:
  - metadata: {name: disk}
    spec:
      accessModes: [ReadWriteOnce]
      {{- if ne .storageClassName nil }}
      storageClassName: {{ .storageClassName | quote }}
      {{- end }}
      resources: {requests: {storage: {{ .size }}}}
{{- end -}}
