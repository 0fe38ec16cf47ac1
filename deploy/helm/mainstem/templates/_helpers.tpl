{{- define "mainstem.name" -}}
{{- /* Room for "-coordinator-12" in names of at most 63 characters. */ -}}
{{- if contains "mainstem" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-mainstem" (.Release.Name | trunc 31 | trimSuffix "-") }}{{- end -}}
{{- end -}}

{{- define "mainstem.selector" -}}
app.kubernetes.io/name: mainstem
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mainstem.labels" -}}
{{ include "mainstem.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "mainstem.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ default (include "mainstem.name" .) .Values.serviceAccount.name }}
{{- else -}}{{ default "default" .Values.serviceAccount.name }}{{- end -}}
{{- end -}}

{{- /* The domain of the pods of one kind: a headless service gives each a name below it. */ -}}
{{- define "mainstem.domain" -}}
{{ include "mainstem.name" .root }}-{{ .kind }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}

{{- define "mainstem.tlsSecret" -}}
{{- if .Values.tls.secret -}}{{ .Values.tls.secret }}{{- else if .Values.tls.issuerRef -}}{{ include "mainstem.name" . }}-tls{{- end -}}
{{- end -}}

{{- /* What all files of the configuration begin with. Values are written as JSON strings, which TOML reads as they are. */ -}}
{{- define "mainstem.config" -}}
{{- $domain := include "mainstem.domain" (dict "root" . "kind" "coordinator") -}}
{{- $members := list -}}
{{- range $pod := until (int .Values.coordinators.founders) -}}
{{- $members = append $members (printf "%d=%s-coordinator-%d.%s:7071" (add1 $pod) (include "mainstem.name" $) $pod $domain) -}}
{{- end -}}
cluster = {{ printf "%s/%s" .Release.Namespace .Release.Name | toJson }}
members = {{ toJson $members }}
state-dir = {{ if .Values.state.claim }}"/state"{{ else }}{{ toJson .Values.state.url }}{{ end }}
{{- if include "mainstem.tlsSecret" . }}

[tls]
certificate = "/etc/mainstem/tls/tls.crt"
key = "/etc/mainstem/tls/tls.key"
authority = "/etc/mainstem/tls/ca.crt"
{{- end }}
{{- end -}}

{{- define "mainstem.coordinator" -}}
{{- $values := .root.Values -}}
{{ include "mainstem.config" .root }}

[coordinator]
id = {{ get $values.coordinators.ids (toString .pod) | default (add1 .pod) | int }}
listen = "{{ $values.listenAddress }}:7071"
data-dir = "/var/lib/mainstem/coordinator"
worker-timeout = {{ toJson $values.coordinators.workerTimeout }}
http = "{{ $values.listenAddress }}:8080"
http-token-file = "/etc/mainstem/tokens/tokens"
{{- end -}}

{{- define "mainstem.worker" -}}
{{ include "mainstem.config" . }}

[worker]
listen = "{{ .Values.listenAddress }}:7072"
slots = {{ int .Values.workers.slots }}
{{- if .Values.workers.memory }}
memory = {{ toJson .Values.workers.memory }}
{{- end }}
copies-dir = "/var/lib/mainstem/copies"
copies-max = {{ toJson .Values.workers.copiesMax }}
scratch-dir = "/var/lib/mainstem/scratch"
http = "{{ .Values.listenAddress }}:8080"
http-token-file = "/etc/mainstem/tokens/tokens"
{{- end -}}

{{- /* What the pods of one kind are to be restarted for when it changes: files are read at the start. */ -}}
{{- define "mainstem.digest" -}}
{{- if eq .kind "worker" -}}{{ include "mainstem.worker" .root | sha256sum }}
{{- else -}}{{ print (include "mainstem.coordinator" (dict "root" .root "pod" 0)) (toJson .root.Values.coordinators.ids) | sha256sum }}{{- end -}}
{{- end -}}

{{- define "mainstem.antiAffinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (merge (dict "app.kubernetes.io/component" .kind) (include "mainstem.selector" .root | fromYaml))) -}}
{{- if eq .root.Values.antiAffinity "required" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      {{- toYaml (list $term) | nindent 6 }}
{{- else if eq .root.Values.antiAffinity "preferred" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      {{- toYaml (list (dict "weight" 100 "podAffinityTerm" $term)) | nindent 6 }}
{{- else if ne .root.Values.antiAffinity "none" }}
{{- fail "antiAffinity is \"required\", \"preferred\" or \"none\"" }}
{{- end }}
{{- end -}}

{{- /* Values that cannot work are refused here, with what to do. */ -}}
{{- define "mainstem.check" -}}
{{- if not (or .Values.state.url .Values.state.claim) }}
{{- fail "say where checkpoints lie: state.url (s3://BUCKET/PREFIX) or state.claim (a ReadWriteMany claim)" }}
{{- end }}
{{- if and .Values.state.url .Values.state.claim }}
{{- fail "state.url and state.claim exclude each other" }}
{{- end }}
{{- if and .Values.state.url (not (regexMatch "^[a-z0-9]+://" .Values.state.url)) }}
{{- fail "state.url is the URL of an object store; for a directory give state.claim" }}
{{- end }}
{{- if not .Values.http.tokenSecret }}
{{- fail "http.tokenSecret names the secret with the tokens; values.yaml shows how to make it" }}
{{- end }}
{{- if and .Values.tls.secret .Values.tls.issuerRef }}
{{- fail "tls.secret and tls.issuerRef exclude each other" }}
{{- end }}
{{- if not (has (int .Values.coordinators.founders) (list 1 3 5)) }}
{{- fail "coordinators.founders is 1, 3 or 5" }}
{{- end }}
{{- if lt (int .Values.coordinators.replicas) (int .Values.coordinators.founders) }}
{{- fail "coordinators.replicas is less than coordinators.founders: the addresses of the first members must stay" }}
{{- end }}
{{- if not (or .Values.workers.memory (dig "limits" "memory" "" .Values.workers.resources)) }}
{{- fail "give workers.resources.limits.memory, of which a worker uses 60 %, or workers.memory: without both it would take 60 % of the host's" }}
{{- end }}
{{- end -}}

{{- /* The names by which nodes are called, and so those of the certificate. */ -}}
{{- define "mainstem.dnsNames" -}}
- "*.{{ include "mainstem.domain" (dict "root" . "kind" "coordinator") }}"
- "*.{{ include "mainstem.domain" (dict "root" . "kind" "worker") }}"
- {{ include "mainstem.name" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
- {{ include "mainstem.name" . }}.{{ .Release.Namespace }}.svc
- {{ include "mainstem.name" . }}
- localhost
{{- end -}}
