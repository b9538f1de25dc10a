{{/* The server's settings as the container's variables. They stand in the pod's template, not in a ConfigMap: a pod that starts again while
     a rollout is under way keeps those of its revision, and `kubectl rollout undo` takes them back. */}}
{{- define "atspeed.environment" -}}
{{- $given := list -}}
{{- range .Values.extraEnv }}{{ $given = append $given .name }}{{ end -}}
{{- $own := list -}}
{{- range include "atspeed.settings" . | fromYamlArray }}{{ if not (has .name $given) }}{{ $own = append $own . }}{{ end }}{{ end -}}
{{- /* A name that stands twice would be refused by a cluster that applies on its side. */ -}}
{{ concat $own .Values.extraEnv | toYaml }}
{{- end }}

{{- define "atspeed.settings" -}}
- {name: ATSPEED_HOST, value: "0.0.0.0"}
- {name: ATSPEED_PORT, value: {{ .Values.containerPort | quote }}}
{{- with .Values.operatePort }}
- {name: ATSPEED_OPERATE_PORT, value: {{ quote . }}}
{{- end }}
- {name: ATSPEED_TARGET, value: {{ printf "%s/%s" .Values.model.volume.mountPath .Values.model.target | quote }}}
- {name: ATSPEED_CATALOG, value: {{ printf "%s/%s" .Values.model.volume.mountPath .Values.model.catalog | quote }}}
{{- with .Values.model.draft }}
- {name: ATSPEED_DRAFT, value: {{ printf "%s/%s" $.Values.model.volume.mountPath . | quote }}}
{{- end }}
{{- if eq .Values.histories.mode "bundled" }}
- {name: ATSPEED_HISTORIES, value: {{ printf "redis://%s:6379/0" (include "atspeed.redisName" .) | quote }}}
{{- else if eq .Values.histories.mode "memory" }}
- {name: ATSPEED_HISTORIES, value: "memory://"}
{{- else if .Values.histories.existingSecret.name }}
- name: ATSPEED_HISTORIES
  valueFrom:
    secretKeyRef: {name: {{ .Values.histories.existingSecret.name }}, key: {{ .Values.histories.existingSecret.key }}}
{{- else }}
- {name: ATSPEED_HISTORIES, value: {{ include "atspeed.historiesUrl" . | quote }}}
{{- end }}
{{- with .Values.catalogs.url }}
- {name: ATSPEED_CATALOGS, value: {{ quote . }}}
- {name: ATSPEED_CATALOG_CACHE, value: /var/cache/atspeed/catalogs}
{{- end }}
{{- if .Values.keys.enabled }}
- {name: ATSPEED_KEYS, value: /etc/atspeed/keys/keys.json}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- /* Numbers of a values file are floats, which toString writes with an exponent from a million on. */}}
- {name: ATSPEED_{{ upper $name }}, value: {{ kindIs "float64" $value | ternary (toJson $value) (toString $value) | quote }}}
{{- end }}
{{- end }}
