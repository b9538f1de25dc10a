{{- define "atspeed.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "atspeed.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "atspeed.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "atspeed.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "atspeed.selectorLabels" -}}
app.kubernetes.io/name: {{ include "atspeed.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "atspeed.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "atspeed.labels" -}}
{{ include "atspeed.selectorLabels" . }}
{{ include "atspeed.commonLabels" . }}
{{- end }}

{{- define "atspeed.redisSelectorLabels" -}}
app.kubernetes.io/name: {{ include "atspeed.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: redis
{{- end }}

{{/* The Service of what operators and Prometheus ask. */}}
{{- define "atspeed.operateService" -}}
{{ include "atspeed.fullname" . }}{{ if .Values.operatePort }}-operate{{ end }}
{{- end }}

{{/* Shorter than the fullname may be: Kubernetes adds 11 letters to a StatefulSet's name for a label of its pods, which holds 63. */}}
{{- define "atspeed.redisName" -}}
{{ include "atspeed.fullname" . | trunc 46 | trimSuffix "-" }}-redis
{{- end }}

{{- define "atspeed.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "atspeed.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "atspeed.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What Kubernetes waits before it kills: the pause, the drain, then what else is under way and the engine's stop (5 s each), and a margin. */}}
{{- define "atspeed.terminationSeconds" -}}
{{ add .Values.preStopSeconds (ceil (default 20 .Values.settings.grace_seconds)) 15 }}
{{- end }}

{{/* The startup probe: a minute longer than the server waits for its engine, or as much longer as failureThreshold says. */}}
{{- define "atspeed.startupProbe" -}}
{{- $probe := .Values.probes.startup -}}
{{- $needed := divf (addf (default 1800 .Values.settings.engine_start_seconds) 60) $probe.periodSeconds | ceil -}}
{{ toYaml (mergeOverwrite (deepCopy $probe) (dict "failureThreshold" (max $probe.failureThreshold $needed))) }}
{{- end }}

{{/* How long a rollout may go without a new replica: as long as one may take to start, and ten minutes to find a node and pull its images. */}}
{{- define "atspeed.progressSeconds" -}}
{{- $probe := include "atspeed.startupProbe" . | fromYaml -}}
{{ add (mul $probe.periodSeconds $probe.failureThreshold) 600 }}
{{- end }}

{{/* How pods are replaced. By default one more comes first: a replica that comes has an empty cache, and the others would have to carry its
     users as well. Where the control store is a file, two pods must not have it open at a time; on the node's network there may be no port
     for one more. */}}
{{- define "atspeed.strategy" -}}
{{- $control := include "atspeed.controlUrl" . -}}
{{- if .Values.strategy }}{{ toYaml .Values.strategy -}}
{{- else if or (hasPrefix "sqlite" $control) (and (eq $control "memory://") (include "atspeed.outlivesPods" (list . (include "atspeed.stateDirectory" .)))) }}type: Recreate
{{- else }}type: RollingUpdate
rollingUpdate: {{ .Values.hostNetwork | ternary "{maxSurge: 0, maxUnavailable: 1}" "{maxSurge: 1, maxUnavailable: 0}" }}
{{- end }}
{{- end }}

{{- define "atspeed.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The URL of an external Redis, with the files that the chart mounts: passwords, and what TLS needs. */}}
{{- define "atspeed.historiesUrl" -}}
{{- $passwords := .Values.histories.passwords -}}
{{- $tls := .Values.histories.tls -}}
{{- $options := list -}}
{{- if $passwords.secretName -}}
{{- if $passwords.key }}{{ $options = append $options "password_file=/etc/atspeed/histories/password" }}{{ end -}}
{{- if $passwords.sentinelKey }}{{ $options = append $options "sentinel_password_file=/etc/atspeed/histories/sentinel-password" }}{{ end -}}
{{- end -}}
{{- if $tls.secretName -}}
{{- if $tls.caKey }}{{ $options = append $options "ssl_ca_certs=/etc/atspeed/histories/ca.crt" }}{{ end -}}
{{- if $tls.certKey }}{{ $options = concat $options (list "ssl_certfile=/etc/atspeed/histories/tls.crt" "ssl_keyfile=/etc/atspeed/histories/tls.key") }}{{ end -}}
{{- end -}}
{{- .Values.histories.url -}}
{{- if $options }}{{ contains "?" .Values.histories.url | ternary "&" "?" }}{{ join "&" $options }}{{ end -}}
{{- end }}

{{- define "atspeed.historiesFiles" -}}
{{- if and (eq .Values.histories.mode "external") (or .Values.histories.passwords.secretName .Values.histories.tls.secretName) }}yes{{ end -}}
{{- end }}

{{- define "atspeed.keysSecret" -}}
{{ .Values.keys.existingSecret.name | default (printf "%s-keys" (include "atspeed.fullname" .)) }}
{{- end }}

{{/* The holders in keys.first whose keys are in the Secret, joined by commas: once it is there, it gets no others. */}}
{{- define "atspeed.keyHolders" -}}
{{- $there := lookup "v1" "Secret" .Release.Namespace (include "atspeed.keysSecret" .) -}}
{{- $made := list -}}
{{- range keys .Values.keys.first | sortAlpha -}}
{{- if or (not $there) (not $there.data) (hasKey $there.data .) }}{{ $made = append $made . }}{{ end -}}
{{- end -}}
{{- join "," $made -}}
{{- end }}

{{/* The entry of the Secret with the key of the test, if there is one: of the first holder that may ask for lists. */}}
{{- define "atspeed.testKey" -}}
{{- if not .Values.keys.enabled -}}
{{- else if .Values.keys.existingSecret.name }}{{ .Values.keys.existingSecret.testKey -}}
{{- else -}}
{{- $able := list -}}
{{- range include "atspeed.keyHolders" . | splitList "," }}{{ if has "recommend" (get $.Values.keys.first . | default list) }}{{ $able = append $able . }}{{ end }}{{ end -}}
{{- first $able | default "" -}}
{{- end -}}
{{- end }}

{{/* Most pods that there will be. */}}
{{- define "atspeed.mostReplicas" -}}
{{ eq .Values.autoscaling.kind "none" | ternary .Values.replicaCount .Values.autoscaling.maxReplicas }}
{{- end }}

{{/* The URL of the control store as the server will find it; empty where it is in a Secret. */}}
{{- define "atspeed.controlUrl" -}}
{{- if .Values.settings.control }}{{ .Values.settings.control -}}
{{- else if eq .Values.histories.mode "memory" }}memory://
{{- else if eq .Values.histories.mode "bundled" }}redis://
{{- else }}{{ .Values.histories.url }}{{ end -}}
{{- end }}

{{/* Where the server keeps its control store, if it has no other: beside its versions, or where it caches those of an object store. */}}
{{- define "atspeed.stateDirectory" -}}
{{- $catalogs := default "" .Values.settings.catalogs -}}
{{ if or (not $catalogs) (contains "://" $catalogs) }}{{ default "" .Values.settings.catalog_cache }}{{ else }}{{ $catalogs }}{{ end }}
{{- end }}

{{/* Whether a directory, the second of a list whose first is the root, is on a volume that is not made for each pod. */}}
{{- define "atspeed.outlivesPods" -}}
{{- $root := index . 0 -}}
{{- $directory := printf "%s/" (index . 1) -}}
{{- $own := list -}}
{{- range $root.Values.extraVolumes }}{{ if or (hasKey . "emptyDir") (hasKey . "ephemeral") }}{{ $own = append $own .name }}{{ end }}{{ end -}}
{{- range $root.Values.extraVolumeMounts -}}
{{- if and (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $directory) (not (has .name $own)) }}yes{{ end -}}
{{- end -}}
{{- end }}

{{/* The bytes that the bundled Redis may fill: 60 % of its limit, for it forks to write its file anew, and counts no buffers of replicas or of
     that file. Empty without a limit. */}}
{{- define "atspeed.redisMaxMemory" -}}
{{- with (.Values.histories.bundled.resources).limits }}{{ with .memory -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]+$" (toString .) -}}
{{- if not (hasKey $units $unit) }}{{ fail (printf "histories.bundled.resources.limits.memory: %v is no number of bytes such as 512Mi." .) }}{{ end -}}
{{- mulf (float64 (trimSuffix $unit (toString .))) (get $units $unit) 0.6 | int64 -}}
{{- end }}{{ end -}}
{{- end }}
