{{/* Values that fit the schema one by one, and together can't work. */}}
{{- define "atspeed.checks" -}}
{{- if and (eq .Values.histories.mode "external") (not .Values.histories.url) (not .Values.histories.existingSecret.name) }}
{{- fail "histories.mode is external: name the Redis in histories.url, or a Secret that holds its URL in histories.existingSecret.name." }}
{{- end }}
{{- if and (ne .Values.histories.mode "external") (or .Values.histories.url .Values.histories.existingSecret.name .Values.histories.passwords.secretName .Values.histories.tls.secretName) }}
{{- fail (printf "histories.url, existingSecret, passwords and tls are of a Redis of yours, and histories.mode is %s: set it to external, or leave them out." .Values.histories.mode) }}
{{- end }}
{{- if and .Values.histories.existingSecret.name (include "atspeed.historiesFiles" .) }}
{{- fail "histories.existingSecret holds the whole URL: name files in it (password_file, ssl_ca_certs, …), or use histories.url with histories.passwords and histories.tls." }}
{{- end }}
{{- if and .Values.histories.passwords.sentinelKey (not (contains "+sentinel:" .Values.histories.url)) }}
{{- fail "histories.passwords.sentinelKey is for Sentinels: histories.url must start with redis+sentinel:// or rediss+sentinel://." }}
{{- end }}
{{- if and .Values.histories.tls.secretName (not (hasPrefix "rediss" .Values.histories.url)) }}
{{- fail "histories.tls is for TLS: histories.url must start with rediss." }}
{{- end }}
{{- if and .Values.histories.passwords.sentinelKey (not .Values.histories.passwords.secretName) }}
{{- fail "histories.passwords.sentinelKey is an entry of a Secret: name that in histories.passwords.secretName." }}
{{- end }}
{{- if and .Values.histories.tls.certKey (not .Values.histories.tls.secretName) }}
{{- fail "histories.tls.certKey is an entry of a Secret: name that in histories.tls.secretName." }}
{{- end }}
{{- if and .Values.catalogs.url (or .Values.settings.catalogs .Values.settings.catalog_cache) }}
{{- fail "catalogs.url is the object store of the versions, with a cache of its own: leave out settings.catalogs and settings.catalog_cache." }}
{{- end }}
{{- if and (contains "://" (default "" .Values.settings.catalogs)) (not .Values.settings.catalog_cache) }}
{{- fail "settings.catalogs is an object store, and what a pod fetches from it would lie in /tmp, whose 2Gi it would be evicted for: name it in catalogs.url, whose cache has a volume, or the mount of one in settings.catalog_cache." }}
{{- end }}
{{- if and .Values.catalogs.existingSecret.name (not .Values.catalogs.url) }}
{{- fail "catalogs.existingSecret holds the credentials of an object store: name that in catalogs.url." }}
{{- end }}
{{- if and (ne .Values.autoscaling.kind "none") (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas must not be above autoscaling.maxReplicas." }}
{{- end }}
{{- if and (ne .Values.autoscaling.kind "none") (gt (mulf .Values.autoscaling.targetWaitSeconds 2000) (float64 (default 1000 .Values.settings.timeout_ms))) }}
{{- fail "autoscaling.targetWaitSeconds must be at most half of settings.timeout_ms (1000 by default): replicas refuse what would not be ready in time, so they never get as much to do, however many requests come." }}
{{- end }}
{{- if and .Values.networkPolicy.operateNamespaces (not .Values.operatePort) }}
{{- fail "networkPolicy.operateNamespaces may reach operatePort, and there is none: name them in ingressNamespaces, or set operatePort." }}
{{- end }}
{{- if and (eq .Values.model.volume.kind "image") (not .Values.model.volume.image.reference) }}
{{- fail "model.volume.kind is image: name the image that holds the models in model.volume.image.reference." }}
{{- end }}
{{- if and (eq .Values.model.volume.kind "hostPath") (not .Values.model.volume.hostPath.path) }}
{{- fail "model.volume.kind is hostPath: name the directory of the node that holds the models in model.volume.hostPath.path." }}
{{- end }}
{{- if eq (int .Values.operatePort) (int .Values.containerPort) }}
{{- fail "operatePort is a port of its own: it must not be containerPort." }}
{{- end }}
{{- if gt (int (include "atspeed.mostReplicas" .)) 1 }}
{{- $control := include "atspeed.controlUrl" . }}
{{- if and $control (not (hasPrefix "redis" $control)) }}
{{- fail (printf "Several replicas need a control store that they share, and that of %s is each pod's own, so a filter or version given to one would be unknown to the others: name a Redis in settings.control or in histories, or set replicaCount to 1 and autoscaling.kind to none." (splitList "://" $control | first)) }}
{{- end }}
{{- $catalogs := .Values.settings.catalogs }}
{{- if and $catalogs (not (contains "://" $catalogs)) (not (include "atspeed.outlivesPods" (list . $catalogs))) }}
{{- fail (printf "Several replicas need files of the catalog's versions that they share, and %s is each pod's own: name an object store in catalogs.url, mount a volume of all pods there with extraVolumes and extraVolumeMounts, or set replicaCount to 1 and autoscaling.kind to none." $catalogs) }}
{{- end }}
{{- end }}
{{- end }}
