{{- define "probegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "probegate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "probegate.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "probegate.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* What selects the pods: never changes over a release's life. */ -}}
{{- define "probegate.selector" -}}
app.kubernetes.io/name: {{ include "probegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "probegate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "probegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* One that a rollout brings is named by what it says: the pods of the release before keep theirs, and so does an undo. */ -}}
{{- define "probegate.configMap" -}}
{{- if .Values.existingConfigMap }}
{{- .Values.existingConfigMap }}
{{- else if .Values.rollOnConfigChange }}
{{- printf "%s-%s" (include "probegate.fullname" . | trunc 52 | trimSuffix "-") (include "probegate.files" . | sha256sum | trunc 10) }}
{{- else }}
{{- include "probegate.fullname" . }}
{{- end }}
{{- end }}

{{- define "probegate.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "probegate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* An image reference from {repository, tag, digest} and a tag to fall back on. */ -}}
{{- define "probegate.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .default }}
{{- end }}
{{- end }}

{{- /* probegate.toml: what the chart knows, then the user's words. */ -}}
{{- define "probegate.toml" -}}
{{- range $table := list "upstream" "listen" }}
{{- if regexMatch (printf `(?m)^\s*\[\s*%s\s*\]` $table) $.Values.config }}
{{- fail (printf "config: [%s] is made from values; set upstream.*, model.port and sidecar.ports, or bring a whole file with existingConfigMap" $table) }}
{{- end }}
{{- end -}}
[upstream]
address = "127.0.0.1:{{ .Values.model.port }}"
{{- with .Values.upstream.preset }}
preset = {{ . | quote }}
{{- end }}
{{- with .Values.upstream.models }}
models = {{ . | toJson }}
{{- end }}
{{- with .Values.upstream.extra }}
{{ . | trim }}
{{- end }}

[listen]
traffic = "0.0.0.0:{{ .Values.sidecar.ports.traffic }}"
probes = "0.0.0.0:{{ .Values.sidecar.ports.probes }}"

{{ .Values.config | trim }}
{{- if not (regexMatch `(?m)^\s*\[\s*report\s*\]` .Values.config) }}

[report]
ring = "/var/lib/probegate/ring.jsonl"
file = "/dev/termination-log"
{{- end }}
{{- end }}

{{- /* Every file of the ConfigMap, as one map. */ -}}
{{- define "probegate.files" -}}
probegate.toml: {{ include "probegate.toml" . | toJson }}
{{- range $name, $text := .Values.files }}
{{- if $text }}
{{ $name }}: {{ $text | toJson }}
{{- else if and (eq $name "golden.json") (contains $name $.Values.config) }}
{{ $name }}: {{ $.Files.Get "files/golden-digits.json" | toJson }}
{{- end }}
{{- end }}
{{- end }}
